"""What of the Kubernetes API the injector uses, through lightkube. Its errors are ``ClusterError``."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import httpx2
import msgspec
from lightkube import ApiError, AsyncClient
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.admissionregistration_v1 import MutatingWebhookConfiguration
from lightkube.resources.core_v1 import ConfigMap, Namespace, Secret
from lightkube.types import PatchType

from mesh.inject.tuning import INJECT
from services.injector.certificate import Certificate

LABELS: Final = {"app.kubernetes.io/managed-by": "sealmesh-injector", "app.kubernetes.io/part-of": "sealmesh"}
_MISSING, _CONFLICT = 404, 409
_CHAIN, _KEY, _AUTHORITIES = "tls.crt", "tls.key", "ca.crt"


class ClusterError(Exception):
    """The Kubernetes API does not answer, or does not do what it is asked for."""


@dataclass(frozen=True, slots=True)
class Held:
    """A certificate as the cluster holds it, and which version of it that is."""

    certificate: Certificate
    version: str


class Cluster(Protocol):
    """What the injector asks of Kubernetes; each raises ``ClusterError``."""

    async def certificate(self) -> Held | None:
        """Give the certificate that the replicas share."""

    async def put_certificate(self, certificate: Certificate, instead_of: Held | None) -> bool:
        """Put a certificate in the place of one; False if another replica was faster."""

    async def trust(self, authorities: bytes) -> None:
        """Let the API server trust CAs (PEM) for the webhook."""

    async def joining(self, namespace: str) -> dict[str, str] | None:
        """Give what nodes of a namespace join with."""

    async def put_joining(self, namespace: str, data: Mapping[str, str], *, new: bool) -> None:
        """Put there what nodes of a namespace join with."""

    async def namespaces(self) -> list[str]:
        """Give the namespaces that ask for sidecars."""


class Lightkube:
    """The cluster that this process runs in, or that its kubeconfig names."""

    def __init__(self, namespace: str, names: Names, client: AsyncClient | None = None) -> None:
        """Take the injector's own namespace, and what is called how."""
        self._namespace, self._names = namespace, names
        self._client = client or AsyncClient(field_manager="sealmesh-injector")

    async def certificate(self) -> Held | None:
        """Read the shared Secret."""
        async with _told("read the certificate"):
            found = await self._found(Secret, self._names.secret, self._namespace)
        if found is None:
            return None
        data = {key: base64.b64decode(value) for key, value in (found.data or {}).items()}
        held = Certificate(data.get(_CHAIN, b""), data.get(_KEY, b""), data.get(_AUTHORITIES, b""))
        return Held(held, found.metadata.resourceVersion)

    async def put_certificate(self, certificate: Certificate, instead_of: Held | None) -> bool:
        """Create the shared Secret, or replace exactly the version that was read."""
        parts = {_CHAIN: certificate.chain, _KEY: certificate.key, _AUTHORITIES: certificate.authorities}
        version = instead_of.version if instead_of else None
        metadata = ObjectMeta(
            name=self._names.secret, namespace=self._namespace, labels=LABELS, resourceVersion=version
        )
        data = {key: base64.b64encode(value).decode() for key, value in parts.items()}
        secret = Secret(metadata=metadata, type="kubernetes.io/tls", data=data)
        async with _told("write the certificate"):
            try:
                await (self._client.replace(secret) if instead_of else self._client.create(secret))
            except ApiError as error:
                if error.status.code == _CONFLICT:
                    return False
                raise
        return True

    async def trust(self, authorities: bytes) -> None:
        """Patch the webhook's caBundle, if it is another."""
        bundle = base64.b64encode(authorities).decode()
        async with _told("tell the API server which certificate to trust"):
            found = await self._client.get(MutatingWebhookConfiguration, self._names.webhook)
            hooks = list(enumerate(found.webhooks or []))
            patch: Any = [
                {"op": "add", "path": f"/webhooks/{number}/clientConfig/caBundle", "value": bundle}
                for number, hook in hooks
                if hook.clientConfig.caBundle != bundle
            ]
            if patch:
                await self._client.patch(
                    MutatingWebhookConfiguration, self._names.webhook, patch, patch_type=PatchType.JSON
                )

    async def joining(self, namespace: str) -> dict[str, str] | None:
        """Read a namespace's ConfigMap."""
        async with _told(f"read what nodes of {namespace} join with"):
            found = await self._found(ConfigMap, self._names.joining, namespace)
        return None if found is None else dict(found.data or {})

    async def put_joining(self, namespace: str, data: Mapping[str, str], *, new: bool) -> None:
        """Create or replace a namespace's ConfigMap."""
        metadata = ObjectMeta(name=self._names.joining, namespace=namespace, labels=LABELS)
        made = ConfigMap(metadata=metadata, data=dict(data))
        async with _told(f"write what nodes of {namespace} join with"):
            await (self._client.create(made) if new else self._client.replace(made))

    async def namespaces(self) -> list[str]:
        """List the namespaces with the label."""
        async with _told("list namespaces"):
            found: Any = self._client.list(Namespace, labels={INJECT: "enabled"})
            return sorted([one.metadata.name async for one in found if one.status.phase != "Terminating"])

    async def _found(self, kind: Any, name: str, namespace: str) -> Any:
        try:
            return await self._client.get(kind, name, namespace=namespace)
        except ApiError as error:
            if error.status.code == _MISSING:
                return None
            raise


@dataclass(frozen=True, slots=True)
class Names:
    """What the injector's own objects are called."""

    secret: str = "sealmesh-injector-tls"  # noqa: S105  a name
    webhook: str = "sealmesh-injector"
    joining: str = "sealmesh-join"


@asynccontextmanager
async def _told(doing: str) -> AsyncIterator[None]:
    try:
        yield
    except ApiError as error:
        msg = f"cannot {doing}: {error.status.message}"
        raise ClusterError(msg) from None
    except msgspec.DecodeError as error:
        msg = f"cannot {doing}: the Kubernetes API gives what is not understood: {error}"
        raise ClusterError(msg) from None
    except httpx2.HTTPError as error:
        msg = f"cannot {doing}: the Kubernetes API does not answer: {error}"
        raise ClusterError(msg) from None
