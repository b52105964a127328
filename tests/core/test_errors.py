"""What each error tells whom."""

import pytest

from mesh.core.errors import Cause, Denied, MeshError, PeerError, Reason

STALE = {Cause.NOT_THIS_INSTANCE, Cause.UNKNOWN_EPOCH}


@pytest.mark.parametrize("cause", Cause)
def test_caller_learns_one_reason(cause: Cause) -> None:
    """Whichever check failed, the caller learns the same, but for what a restart looks like."""
    expected = Reason.STALE_PEER if cause in STALE else Reason.SEAL_REJECTED
    assert PeerError(cause).reason is expected


def test_operator_learns_the_cause() -> None:
    """The true cause and its detail stand in the error itself."""
    assert str(PeerError(Cause.BAD_MAC)) == "mac does not verify"
    assert str(PeerError(Cause.BAD_MAC, "call")) == "mac does not verify: call"


def test_denied_names_the_rule() -> None:
    """A denial says who may not call what, and which rule says so, or that none allows it."""
    assert str(Denied("evil", "/p.S/M", "no-evil")) == "evil may not call /p.S/M: denied by rule 'no-evil'"
    assert str(Denied("evil", "/p.S/M", None)) == "evil may not call /p.S/M: no rule allows it"


def test_one_tree() -> None:
    """Every error of the mesh has one root, and a denial is no peer error."""
    assert issubclass(PeerError, MeshError)
    assert issubclass(Denied, MeshError)
    assert not issubclass(Denied, PeerError)
