"""What an operator can do about a call that was not believed: one line for each cause."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from mesh.core.errors import Cause

HINTS: Final = MappingProxyType(
    {
        Cause.MALFORMED: "what called is no node of the mesh: see who can connect to its port",
        Cause.TOO_LARGE: "the call is larger than a call can be: send less metadata",
        Cause.BAD_VERSION: "the caller runs another version of the mesh: run one version everywhere",
        Cause.BAD_METHOD: "something on the way led the call to another method: see what stands between",
        Cause.NOT_ME: "another service is at this address than the caller meant: mesh status",
        Cause.NOT_THIS_INSTANCE: "the callee restarted: callers find the new one by themselves",
        Cause.UNKNOWN_EPOCH: "keys have rolled and one side has not renewed: mesh check, keys, clocks",
        Cause.BAD_MAC: "the header was changed on its way: see what stands between the two",
        Cause.WRONG_PEER: "a node sent what another one sealed: look at the sender",
        Cause.REPLAYED: "something on the way repeats or replays calls: see what stands between",
        Cause.BAD_METADATA: "metadata was changed on its way: a proxy that adds headers breaks calls",
        Cause.BAD_DEADLINE: "the deadline was past, or lengthened on its way: mesh check, clocks",
        Cause.BAD_FRAME: "a message was changed, dropped or moved on its way: see what is between",
        Cause.CUT_SHORT: "the caller died, or something on the way cut its stream short",
        Cause.BAD_PROOF: "somebody tried to join with a token's id and without its secret",
    }
)
