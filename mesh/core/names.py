"""Names, parsed once and trusted ever after: trust domain, service, identity, instance, method.

Each type is made by ``parse`` (or its constructor, which checks the same) and raises ``ValueError`` with
one line that says what is wrong. Names compare as bytes; nothing is normalised, folded or trimmed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_LABEL = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
_SERVICE = re.compile(rf"{_LABEL}(?:\.{_LABEL}){{0,4}}")
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
_METHOD = re.compile(rf"/{_IDENTIFIER}(?:\.{_IDENTIFIER})*/{_IDENTIFIER}")

#: A DNS name holds 253 characters (RFC 1035 section 2.3.4), and ``<name>.<trust-domain>`` has to be one.
MAX_DOMAIN: Final = 127
MAX_SERVICE: Final = 125
MAX_METHOD: Final = 512
INSTANCE_BYTES: Final = 16
#: Epochs count from 1 and fit the 32 bits that the header gives them.
MAX_EPOCH: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class TrustDomain:
    """The domain within which identities mean something, such as ``shop.example``."""

    text: str

    def __post_init__(self) -> None:
        """Refuse what is no lower-case DNS name of at most 127 characters."""
        if len(self.text) > MAX_DOMAIN or not _DOMAIN.fullmatch(self.text):
            msg = f"bad trust domain {self.text!a:.80}: use a lower-case DNS name such as shop.example"
            raise ValueError(msg)

    def __str__(self) -> str:
        """Give the bare text."""
        return self.text


@dataclass(frozen=True, slots=True, order=True)
class ServiceName:
    """1 to 5 labels joined by dots, such as ``inventory`` or ``billing.ledger``."""

    text: str

    def __post_init__(self) -> None:
        """Refuse what is outside the grammar or longer than 125 characters."""
        if len(self.text) > MAX_SERVICE or not _SERVICE.fullmatch(self.text):
            msg = (
                f"bad service name {self.text!a:.80}: use 1 to 5 labels of a-z, 0-9 and inner hyphens, "
                "each starting with a letter, joined by dots"
            )
            raise ValueError(msg)

    def __str__(self) -> str:
        """Give the bare text."""
        return self.text

    def __eq__(self, other: object) -> bool:
        """Compare by the text, with a bare one too: who asks ``peer.service == "orders"`` means that."""
        return self.text == (other.text if isinstance(other, ServiceName) else other)

    def __hash__(self) -> int:
        """Hash as the text does."""
        return hash(self.text)

    @property
    def reserved(self) -> bool:
        """Whether the name belongs to the mesh itself: ``mesh`` and all below it."""
        return self.text == "mesh" or self.text.startswith("mesh.")


#: The mesh's own services. Users' names never start so.
AUTH: Final = ServiceName("mesh.auth")
GATEKEEPER: Final = ServiceName("mesh.gatekeeper")
OPERATOR: Final = ServiceName("mesh.operator")


@dataclass(frozen=True, slots=True)
class Identity:
    """A service in its trust domain, as a SPIFFE ID (SPIFFE-ID section 2)."""

    domain: TrustDomain
    service: ServiceName

    @classmethod
    def parse(cls, uri: str) -> Identity:
        """Read ``spiffe://<trust-domain>/<service>``; raise ``ValueError`` for anything else."""
        scheme, _, rest = uri.partition("://")
        domain, slash, service = rest.partition("/")
        if scheme != "spiffe" or not slash:
            msg = f"bad identity {uri!r:.80}: not spiffe://<trust domain>/<service>"
            raise ValueError(msg)
        return cls(TrustDomain(domain), ServiceName(service))

    @property
    def uri(self) -> str:
        """The SPIFFE ID."""
        return f"spiffe://{self.domain}/{self.service}"

    @property
    def dns(self) -> str:
        """The name that TLS checks: ``<service>.<trust-domain>``."""
        return f"{self.service}.{self.domain}"


@dataclass(frozen=True, slots=True, order=True)
class InstanceId:
    """16 random bytes, given by auth to one running copy of a service."""

    raw: bytes

    def __post_init__(self) -> None:
        """Refuse any other length."""
        if len(self.raw) != INSTANCE_BYTES:
            msg = f"bad instance id: {len(self.raw)} bytes, not {INSTANCE_BYTES}"
            raise ValueError(msg)

    def __str__(self) -> str:
        """Give it in hex, as it stands in certificates and listings."""
        return self.raw.hex()

    @classmethod
    def parse(cls, text: str) -> InstanceId:
        """Read 32 lower-case hex digits; raise ``ValueError`` for anything else."""
        if not re.fullmatch(r"[0-9a-f]{32}", text):
            msg = f"bad instance id {text!r:.80}: not 32 lower-case hex digits"
            raise ValueError(msg)
        return cls(bytes.fromhex(text))


@dataclass(frozen=True, slots=True)
class FullMethod:
    """``/package.Service/Method``. The string judged, sealed and dispatched is this one's ``text``."""

    text: str

    def __post_init__(self) -> None:
        """Refuse all but identifiers, dots and the two slashes, and more than 512 characters."""
        if len(self.text) > MAX_METHOD or not _METHOD.fullmatch(self.text):
            msg = f"bad method {self.text!a:.80}: not /package.Service/Method"
            raise ValueError(msg)

    def __str__(self) -> str:
        """Give the bare text."""
        return self.text


@dataclass(frozen=True, slots=True, order=True)
class KeyEpoch:
    """The number of one generation of keys, from 1."""

    number: int

    def __post_init__(self) -> None:
        """Refuse what does not fit the header."""
        if not 1 <= self.number <= MAX_EPOCH:
            msg = f"bad epoch {self.number}: not 1 to 2^32 - 1"
            raise ValueError(msg)


# Names recur from call to call: parsing one again is a look-up. Failures are not cached, so a stranger
# can fill these with nothing but valid names, and then only up to their bound.
service_name = lru_cache(4096)(ServiceName)
instance_id = lru_cache(4096)(InstanceId)
full_method = lru_cache(4096)(FullMethod)
