"""What of Lua's library a manifest may allow: the data of ``lua/sandbox.lua``, for who reads the manifest.

A worker judges for itself by its own list; this one only finds an error earlier, with its line.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


#: Always there.
CORE: Final = _set(
    "_VERSION assert error getmetatable ipairs next pairs pcall rawequal rawget rawlen rawset select"
    " setmetatable tonumber tostring type xpcall"
)
#: On request, by their own name.
FUNCTIONS: Final = _set("load")
#: On request, whole or function by function.
MODULES: Final = {
    "coroutine": _set("close create isyieldable resume running status wrap yield"),
    "math": _set(
        "abs acos asin atan ceil cos deg exp floor fmod huge log max maxinteger min mininteger modf pi rad"
        " random sin sqrt tan tointeger type ult"
    ),
    "string": _set(
        "byte char find format gmatch gsub len lower match pack packsize rep reverse sub unpack upper"
    ),
    "table": _set("concat insert move pack remove sort unpack"),
    "utf8": _set("char charpattern codepoint codes len offset"),
}
#: Whatever a manifest says.
NEVER: Final = _set(
    "_G collectgarbage debug dofile io loadfile math.randomseed os package print python require string.dump"
    " warn"
)
_ALLOWED: Final = frozenset(
    [*FUNCTIONS, *MODULES, *(f"{module}.{name}" for module, names in MODULES.items() for name in names)]
)


def checked_entry(entry: str) -> str:
    """Give back an entry of ``allow``; raise ``ValueError`` for anything else."""
    if entry in _ALLOWED or entry in CORE:
        return entry
    if entry in NEVER or entry.partition(".")[0] in NEVER:
        msg = f"{entry!r:.80} is never allowed"
        raise ValueError(msg)
    msg = f"there is no {entry!r:.80} in Lua's library{instead(entry, _ALLOWED)}"
    raise ValueError(msg)


def instead(wrong: str, known: frozenset[str] | tuple[str, ...]) -> str:
    """Give the end of a line about a name that is not known: what it may have been meant to be."""
    near = get_close_matches(wrong, sorted(known), 1)
    if near:
        return f": did you mean {near[0]}"
    return "" if len(known) > 16 else f": use {', '.join(sorted(known))}"  # noqa: PLR2004  as many as one reads
