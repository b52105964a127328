"""Which services a change of a policy puts into audit, or takes out of it, and what else it changes.

A line that says ``mode: audit`` may concern every call of a mesh. So modes are told by themselves, and what
remains is found by a comparison with the old policy as it would be in the new one's modes. Modes of single
rules are not touched: those are differences of what is granted like any other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from mesh.core.policy import Policy


class Switched(NamedTuple):
    """Services of both policies that are in audit only now, and those that were and now enforce."""

    audited: tuple[str, ...]
    enforced: tuple[str, ...]


def switched(old: Policy, new: Policy) -> Switched:
    """Give the services whose mode is another one, wherever it was changed."""
    both = sorted(old.services.keys() & new.services.keys())
    had = {name: old.section(name).audits for name in both}
    has = {name: new.section(name).audits for name in both}
    return Switched(
        tuple(name.text for name in both if has[name] and not had[name]),
        tuple(name.text for name in both if had[name] and not has[name]),
    )


def in_modes_of(new: Policy, old: Policy) -> Policy:
    """Give the old policy with the modes of the new one, of the document and of the services in both."""
    services = {
        name: replace(section, mode=new.services[name].mode) if name in new.services else section
        for name, section in old.services.items()
    }
    return replace(old, services=services, mode=new.mode)
