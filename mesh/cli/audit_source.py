"""Where ``mesh audit`` reads the logs: from a running auth, or from the files of one that does not run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mesh.cli.errors import CliError, Exit
from mesh.cli.operator import Operator
from mesh.core.audit import Entry
from mesh.core.chain import BadLineError, Head, Line
from mesh.v1 import audit_pb2

LOGS: Final = ("actions", "denials")
#: Behind every segment: asked from here, auth gives the anchor and nothing else.
_NOTHING: Final = 2**62
#: How often a log is read whose oldest segment goes while it is.
TRIES: Final = 5
#: Seconds that auth may take for all that it has.
PATIENCE: Final = 120.0


@dataclass(frozen=True, slots=True)
class Place:
    """How far a log was read: the next byte of a segment."""

    segment: int = 0
    offset: int = 0


@dataclass(slots=True)
class Read:
    """A log, or its end: where auth says that it ends, and the bytes of its segments."""

    head: Head
    segments: dict[int, bytes] = field(default_factory=dict)

    def entries(self, start: Place) -> tuple[list[tuple[int, Entry]], int, Place]:
        """Give the entries in it with their numbers, how many lines are none, and the place behind them."""
        found: list[tuple[int, Entry]] = []
        bad, place = 0, start
        for number in sorted(self.segments):
            *lines, _ = self.segments[number].split(b"\n")
            for text in lines:
                try:
                    line = Line.parse(text)
                except BadLineError:
                    bad += 1
                else:
                    found.append((line.sequence, line.entry))
            before = start.offset if number == start.segment else 0
            place = Place(number, before + sum(len(text) + 1 for text in lines))
        return found, bad, place


async def ask(operator: Operator, log: str, start: Place) -> Read:
    """Read a log of a running auth from a place on.

    Anew if its oldest segment went to make room meanwhile: a part of it would look as if it had been removed.
    """
    for _ in range(TRIES):
        read = await _ask(operator, log, start)
        oldest = read.head.first_segment
        if start.segment > oldest or (await _head_of(operator, log)).first_segment == oldest:
            return read
    raise CliError(f"the log of {log} grows faster than it can be read: try again, or with --offline")


async def _head_of(operator: Operator, log: str) -> Head:
    return (await _ask(operator, log, Place(_NOTHING))).head


async def _ask(operator: Operator, log: str, start: Place) -> Read:
    request = audit_pb2.ReadRequest(log=log, segment=start.segment, offset=start.offset)
    read: Read | None = None
    pieces: dict[int, list[bytes]] = {}
    async for response in operator.audit.Read(request, timeout=PATIENCE):
        if read is None:
            read = Read(_head(response.anchor))
        else:
            pieces.setdefault(response.segment, []).append(response.data)
    if read is None:
        raise CliError("auth gave no log: see the output of mesh up")
    read.segments = {number: b"".join(parts) for number, parts in pieces.items()}
    return read


async def near_the_end(operator: Operator, log: str) -> Place:
    """Give the place where the last segment but one of a log begins."""
    head = await _head_of(operator, log)
    return Place(max(head.first_segment, head.segment - 1))


def offline(data: Path) -> dict[str, Read]:
    """Read every log of a data directory that no auth runs on. Nothing in it is changed."""
    from services.auth.directory import DataDirectory  # noqa: PLC0415  only where auth's own files are
    from services.auth.errors import AuthError  # noqa: PLC0415

    reads = {}
    try:
        with DataDirectory(data) as directory:
            audit = directory.store.logs.open
            for log, head in audit.heads().items():
                sizes = audit.segments(log).items()
                files = {number: audit.files[log].read(number, 0, size) for number, size in sizes}
                reads[log] = Read(head, {number: content for number, content in files.items() if content})
    except AuthError as error:
        raise CliError(str(error), Exit.DATA) from None
    return reads


def _head(anchor: audit_pb2.Anchor) -> Head:
    numbers = (anchor.first_segment, anchor.segment, anchor.sequence, anchor.size)
    return Head(anchor.log, *numbers, anchor.mac, anchor.at_ms)
