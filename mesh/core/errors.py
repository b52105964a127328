"""The one tree of errors.

``PeerError``: the other side sent something that must not be believed. Its ``cause`` is for operators;
the other side learns no more than the ``Reason`` that the cause maps to. ``Denied``: the other side is
who it says, and may not. Misuse of this library is a ``ValueError`` or ``RuntimeError``, never one of these.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

#: Stands in the place of a rule's name where a caller was denied for being revoked or banned.
REVOKED: Final = "mesh/revoked"


class Reason(StrEnum):
    """What the mesh tells a caller; ``ErrorInfo.reason`` in the domain ``mesh``."""

    SEAL_REJECTED = "SEAL_REJECTED"
    """A check of the seal failed; which one is for operators only."""
    STALE_PEER = "STALE_PEER"
    """Sealed for an instance or epoch that this node does not have; not dispatched."""
    POLICY_DENIED = "POLICY_DENIED"
    """The caller is who it says, and may not make this call."""
    NAME_UNAVAILABLE = "NAME_UNAVAILABLE"
    """Unknown and forbidden names alike."""
    NOT_READY = "NOT_READY"
    """The node has no keys, slice or endpoint yet, or no longer."""
    BAD_REQUEST = "BAD_REQUEST"
    """The application asked for what the mesh cannot carry."""
    REVOKED = "REVOKED"
    """The caller is who it says, and is a member no more."""
    PEER_REVOKED = "PEER_REVOKED"
    """The callee is a member no more: said by a node to its own application, never sent."""
    OVERLOADED = "OVERLOADED"
    """This node has as many calls open to the callee as it may: said to its own application, never sent."""
    RATE_LIMITED = "RATE_LIMITED"
    """The caller is who it says, and makes more calls than it may."""
    UNSEALED = "UNSEALED"
    """A reply without a valid seal: said by a node to its own application, never sent."""
    FAULT = "FAULT"
    """The policy has some calls end for nothing: said by a node to its own application, never sent."""


class Cause(StrEnum):
    """Why a peer was not believed, in the order in which a receiver checks."""

    MALFORMED = "malformed"
    TOO_LARGE = "too large"
    BAD_VERSION = "unknown wire version"
    BAD_METHOD = "method is not /package.Service/Method or not the one sealed"
    NOT_ME = "sealed for another service"
    NOT_THIS_INSTANCE = "sealed for another instance"
    UNKNOWN_EPOCH = "unknown epoch"
    BAD_MAC = "mac does not verify"
    WRONG_PEER = "tls peer is not the source"
    REPLAYED = "sequence number was seen before or is too old"
    BAD_METADATA = "metadata is not what was sealed"
    BAD_DEADLINE = "deadline is past or was lengthened"
    BAD_FRAME = "frame does not verify"
    CUT_SHORT = "stream ended without its sealed end"
    BAD_PROOF = "proof of the join secret does not verify"


#: What a caller may learn of a cause. Everything not listed is SEAL_REJECTED.
_REASONS = {Cause.NOT_THIS_INSTANCE: Reason.STALE_PEER, Cause.UNKNOWN_EPOCH: Reason.STALE_PEER}


class MeshError(Exception):
    """Root of every error that the mesh itself raises."""


class PeerError(MeshError):
    """The peer sent something that must not be believed. Nothing was changed by it."""

    def __init__(self, cause: Cause, detail: str = "") -> None:
        """Take the true cause, and a detail without secrets or payload for the operator."""
        super().__init__(f"{cause}: {detail}" if detail else str(cause))
        self.cause = cause

    @property
    def reason(self) -> Reason:
        """What the peer may be told."""
        return _REASONS.get(self.cause, Reason.SEAL_REJECTED)


class Denied(MeshError):
    """No permit: the rule that denies, or ``None`` where no rule allows."""

    def __init__(self, source: str, method: str, rule: str | None) -> None:
        """Take the verified caller's service name, the full method and the rule's name."""
        why = f"denied by rule {rule!r}" if rule else "no rule allows it"
        if rule == REVOKED:
            why = "it is revoked or banned"
        super().__init__(f"{source} may not call {method}: {why}")
        self.source, self.method, self.rule = source, method, rule

    @property
    def reason(self) -> Reason:
        """What the caller may be told."""
        return Reason.REVOKED if self.rule == REVOKED else Reason.POLICY_DENIED
