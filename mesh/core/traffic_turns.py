"""What differs between two policies in how calls are made, in words; ``difference`` says which calls may be.

Of each destination every part of its traffic is compared by itself, and every route, by its paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from mesh.core.document import Node
from mesh.core.policy import Policy
from mesh.core.traffic import Share, Traffic
from mesh.core.traffic_document import data
from mesh.core.traffic_routes import routes_data

#: What stands for a part that a policy does not speak of.
NOTHING: Final = "none"


@dataclass(frozen=True, slots=True)
class Turn:
    """A part of the traffic to a service that was otherwise."""

    destination: str
    part: str
    before: str
    after: str

    @property
    def text(self) -> str:
        """It in one line."""
        return f"~ traffic to {self.destination}: {self.part}: {self.before} => {self.after}"


def turns(old: Policy, new: Policy) -> list[Turn]:
    """Give what differs, by destination. Of a service that is gone, so is what is said of it."""
    return [
        Turn(name.text, part, before, after)
        for name in sorted(old.traffic.keys() | new.traffic.keys())
        for part, before, after in _turns(old.traffic_to(name), new.traffic_to(name))
    ]


def _turns(old: Traffic, new: Traffic) -> Iterator[tuple[str, str, str]]:
    was, now = _parts(old), _parts(new)
    for part in dict.fromkeys((*was, *now)):
        before, after = was.get(part, NOTHING), now.get(part, NOTHING)
        if before != after:
            yield part, before, after
    kept = [part for part in was if part in now]
    moved = [part for part in now if part in was]
    if kept != moved:
        yield "order", ", ".join(kept), ", ".join(moved)


def _parts(traffic: Traffic) -> dict[str, str]:
    said = data(traffic)
    parts = {part: _words(node) for part, node in said.items() if part not in ("split", "routes")}
    if traffic.split:
        parts["split"] = ", ".join(map(_share, traffic.split))
    for route, node in zip(traffic.routes, routes_data(traffic.routes), strict=True):
        name = f"route {' '.join(route.paths)}"
        # Of two with the same paths the second does nothing, and is told all the same.
        parts[name + " again" * (name in parts)] = _words({k: v for k, v in node.items() if k != "paths"})
    return parts


def _share(share: Share) -> str:
    if not share.headers:
        return f"{share.service} {share.weight}"
    asked = " and ".join(f"{header.key} is {' or '.join(header.values)}" for header in share.headers)
    return f"{share.service} if {asked}"


def _words(node: Node) -> str:
    if isinstance(node, Mapping):
        return ", ".join(f"{key} {_words(value)}" for key, value in node.items()) or "as everywhere"
    return " ".join(node) if isinstance(node, tuple) else str(node)
