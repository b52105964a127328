"""Kubernetes, as far as auth asks it: who the owner of a token is, and a place to publish the join key.

A token is true only if the API server says so (TokenReview) and that it is meant for the mesh's audience; the
server also sees that the pod it is bound to is still there. lightkube is in the extra ``kubernetes``.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import httpx2
import msgspec
import yaml
from lightkube import ApiError, AsyncClient
from lightkube.models.authentication_v1 import TokenReviewSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.authentication_v1 import TokenReview
from lightkube.resources.core_v1 import ConfigMap

from mesh.core.workloads import Rules, Workload
from services.auth.errors import AuthError, StartError
from services.auth.vouching import NotVouchedError, UnaskedError

log = logging.getLogger("mesh.auth")

#: Seconds that the API server has to answer in; a node waits 5 for all of a join.
PATIENCE: Final = 4.0
#: Seconds between looks at whether what is published is still there.
LOOK: Final = 15.0
_KEYS: Final = ("audience", "namespace", "configMap", "rules")
_USERNAME: Final = re.compile(r"system:serviceaccount:([a-z0-9-]{1,63}):([a-z0-9.-]{1,253})")
_POD: Final = "authentication.kubernetes.io/pod-name"
_MISSING: Final = 404


@dataclass(frozen=True, slots=True)
class Settings:
    """What auth is told about its cluster. ``namespace`` is its own."""

    audience: str
    namespace: str
    config_map: str
    rules: Rules

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file; raise ``StartError``."""
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
            if not isinstance(found, Mapping) or set(found) != set(_KEYS):
                raise StartError(f"{path}: has to be a mapping of {', '.join(_KEYS)}")
            audience, namespace, config_map = texts = [found[key] for key in _KEYS[:3]]
            if not all(isinstance(text, str) and text for text in texts):
                raise StartError(f"{path}: {', '.join(_KEYS[:3])} have to be texts")
            return cls(audience, namespace, config_map, Rules.parse(found["rules"]))
        except OSError as error:
            raise StartError(f"cannot read {path}: {error.strerror}") from None
        except (yaml.YAMLError, ValueError) as error:
            raise StartError(f"{path}: {' '.join(str(error).split())}") from None


class Kubernetes:
    """The cluster that auth runs in, or that its kubeconfig names."""

    def __init__(self, settings: Settings, client: AsyncClient | None = None) -> None:
        """Take the settings; raise ``StartError`` if there is no way to a cluster."""
        self._settings = settings
        try:
            timeout = httpx2.Timeout(PATIENCE)
            self._client = client or AsyncClient(field_manager="sealmesh-auth", timeout=timeout)
        except Exception as error:  # noqa: BLE001  whatever it is, there is no way
            raise StartError(f"no way to Kubernetes: {error}: run in a cluster, or set KUBECONFIG") from None

    async def review(self, token: str) -> Workload:
        """Ask who the owner of a token is."""
        asked = TokenReview(spec=TokenReviewSpec(token=token, audiences=[self._settings.audience]))
        with _unasked():
            status = (await self._client.create(asked)).status
        if status is None or not status.authenticated:
            why = (status.error if status else None) or "the token is not true, or its pod is gone"
            raise NotVouchedError(why)
        # A server that knows nothing of audiences says so by leaving them out.
        if self._settings.audience not in (status.audiences or []):
            raise NotVouchedError("the token is for another audience")
        user: Any = status.user
        match = _USERNAME.fullmatch((user and user.username) or "")
        if not match:
            raise NotVouchedError("the token is no service account's")
        pods = (user.extra or {}).get(_POD) or [""]
        return Workload(match[1], match[2], pods[0])

    async def keep(self, joining: Callable[[], Awaitable[Mapping[str, str]]]) -> None:
        """Keep what nodes join with published, for ever; run it as a task of its own."""
        said = ""
        while True:
            try:
                await self.publish(await joining())
                said = ""
            except AuthError as error:
                if str(error) != said:
                    said = str(error)
                    log.error("cannot publish the join key, trying on: %s", said)  # noqa: TRY400
            await asyncio.sleep(LOOK)

    async def publish(self, data: Mapping[str, str]) -> None:
        """See that the ConfigMap holds what nodes join with; raise ``UnaskedError``."""
        name, namespace = self._settings.config_map, self._settings.namespace
        labels = {"app.kubernetes.io/managed-by": "sealmesh-auth", "app.kubernetes.io/part-of": "sealmesh"}
        metadata = ObjectMeta(name=name, namespace=namespace, labels=labels)
        made = ConfigMap(metadata=metadata, data=dict(data))
        with _unasked():
            try:
                found = await self._client.get(ConfigMap, name, namespace=namespace)
            except ApiError as error:
                if error.status.code != _MISSING:
                    raise
                await self._client.create(made)
                log.info("published the join key in %s/%s", namespace, name)
                return
            if found.data != data:
                await self._client.replace(made)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


@contextmanager
def _unasked() -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        raise UnaskedError(f"Kubernetes refuses: {error.status.message}") from None
    except (httpx2.HTTPError, msgspec.DecodeError) as error:
        raise UnaskedError(f"Kubernetes does not answer: {str(error) or type(error).__name__}") from None
