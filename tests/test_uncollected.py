"""Nothing looks for cycles in the block, and everything is as it was after it."""

from __future__ import annotations

import gc

import pytest

from mesh.uncollected import uncollected


def test_in_the_block_and_after_it() -> None:
    """Also where blocks are within one another, or end with an error."""
    assert gc.isenabled()
    with uncollected(), uncollected():
        assert not gc.isenabled()
    with pytest.raises(ValueError, match="no policy"), uncollected():
        raise ValueError("no policy")
    assert gc.isenabled()


def test_who_does_without_goes_on_without() -> None:
    """A process that has switched it off finds it off."""
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
