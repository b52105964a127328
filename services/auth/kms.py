"""Key management services (KMS): what seals a KEK so that it can lie in a file, and opens it again.

A KMS is named ``<kind>:<key>``; ``aws:`` and a key id, ARN or alias is AWS KMS, through boto3 and whatever
credentials, region and endpoint that finds (environment, profile, instance role). It is asked when auth
starts and when the KEK is rotated, and never in between: secrets are sealed with the KEK in memory.

Another one is a class with ``seal`` and ``open``, and a line in ``_KINDS``.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

from mesh.core.keys import KEY_BYTES
from services.auth.errors import StartError

#: What AWS binds the sealed KEK to, and shows in its own audit trail.
CONTEXT: Final = {"sealmesh": "kek"}
#: Seconds for a connection to be made, and for an answer.
PATIENCE: Final = 10


class Kms(Protocol):
    """Seals and opens 32 bytes. Both raise ``StartError`` with one line where that fails."""

    def seal(self, kek: bytes) -> bytes:
        """Seal a KEK."""

    def open(self, sealed: bytes) -> bytes:
        """Open a sealed KEK."""


def kms(name: str) -> Kms:
    """Give the KMS of a name; raise ``StartError`` for one that is not known here."""
    kind, _, key = name.partition(":")
    if kind not in _KINDS or not key:
        raise StartError(f"unknown KMS {name!r:.200}: use aws: and the id, ARN or alias of a key")
    return _KINDS[kind](key)


class AwsKms:
    """A symmetric key of AWS KMS."""

    def __init__(self, key: str) -> None:
        """Take the key's id, ARN or alias (``alias/mesh``)."""
        self._key = key

    def seal(self, kek: bytes) -> bytes:
        """Seal a KEK under the key."""
        return self._ask("encrypt", "CiphertextBlob", Plaintext=kek)

    def open(self, sealed: bytes) -> bytes:
        """Open a KEK that was sealed under the key, for this use."""
        kek = self._ask("decrypt", "Plaintext", CiphertextBlob=sealed)
        if len(kek) != KEY_BYTES:
            raise StartError(
                f"AWS KMS key {self._key} sealed something that is no KEK: put back the key file"
            )
        return kek

    def _ask(self, method: str, answer: str, **what: bytes) -> bytes:
        try:
            import boto3  # noqa: PLC0415  installed only where it is used
            from botocore.config import Config  # noqa: PLC0415
            from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
        except ImportError:
            raise StartError("AWS KMS needs boto3: run pip install 'sealmesh[aws]'") from None
        limits = Config(connect_timeout=PATIENCE, read_timeout=PATIENCE, retries={"total_max_attempts": 3})
        region = self._key.split(":")[3] if self._key.startswith("arn:") else None
        try:
            client: Any = boto3.client("kms", region_name=region, config=limits)
            ask: Callable[..., dict[str, bytes]] = getattr(client, method)
            return ask(KeyId=self._key, EncryptionContext=CONTEXT, **what)[answer]
        except (BotoCoreError, ClientError, ValueError) as error:
            said = " ".join(str(error).split())[:300]
            raise StartError(f"AWS KMS does not {method} with {self._key}: {said}") from None


_KINDS: Final[dict[str, Callable[[str], Kms]]] = {"aws": AwsKms}
