"""Which service a pod is: an ordered list of rules over what Kubernetes vouches for. Pure.

    {"namespace": "shop", "serviceAccount": "orders", "pod": "orders-*", "service": "orders"}
    {"namespace": "team-*", "serviceAccount": "*", "service": "{serviceAccount}.{namespace}"}

The first rule that matches decides, and without one there is no service. A pattern is a whole name, or ends
in ``*``. What stands in braces is filled in; such a rule never gives a name of the mesh itself, for then who
may name a namespace could be gatekeeper. A label holds one filling, without dots: by an account called
``ledger.team-a`` who makes accounts in ``shop`` would be team-a's ledger; by ``{serviceAccount}-{namespace}``
``x-team-a`` in ``team-b`` would be ``x`` in ``team-a-team-b``. A workload without a pod (a token that a
person asked for) is never anything but ``mesh.operator``.

auth and the injector read the same rules with this, so that a pod is injected as who it will be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mesh.core.names import GATEKEEPER, OPERATOR, ServiceName

_KEYS: Final = ("namespace", "serviceAccount", "pod", "service")
_FILLED: Final = ("{namespace}", "{serviceAccount}")


@dataclass(frozen=True, slots=True)
class Workload:
    """Who somebody is to Kubernetes. ``pod`` is empty for a token that is bound to none."""

    namespace: str
    service_account: str
    pod: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service_account}/{self.pod or '-'}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: three patterns, and the name that they give."""

    namespace: str
    service_account: str
    pod: str
    service: str

    def gives(self, workload: Workload) -> ServiceName | None:
        """Give the service of a workload that this rule matches, ``None`` for any other."""
        patterns = ((self.namespace, workload.namespace), (self.service_account, workload.service_account))
        if not all(_matches(pattern, text) for pattern, text in (*patterns, (self.pod, workload.pod))):
            return None
        if not workload.pod and self.service != OPERATOR.text:
            return None
        fillings = dict(zip(_FILLED, (workload.namespace, workload.service_account), strict=True))
        used = {part: text for part, text in fillings.items() if part in self.service}
        if any("." in text for text in used.values()):
            return None
        filled = self.service
        for part, text in used.items():
            filled = filled.replace(part, text)
        try:
            name = ServiceName(filled)
        except ValueError:
            return None
        return None if name.reserved and name.text != self.service else name


class Rules:
    """Rules in their order."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        """Take rules; the first that matches decides."""
        self._rules = tuple(rules)

    @classmethod
    def parse(cls, found: object) -> Rules:
        """Read rules from plain data; raise ``ValueError`` with the place for what makes no sense."""
        if not isinstance(found, list):
            msg = "rules: has to be a list of rules"
            raise ValueError(msg)  # noqa: TRY004  wrong data, not a wrong program
        return cls([_rule(one, f"rules[{number}]") for number, one in enumerate(found)])

    def service_of(self, workload: Workload) -> ServiceName | None:
        """Give the service that a workload is, if any."""
        return next((name for rule in self._rules if (name := rule.gives(workload)) is not None), None)


def _matches(pattern: str, text: str) -> bool:
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


def _rule(found: object, where: str) -> Rule:
    if not isinstance(found, Mapping):
        msg = f"{where}: has to be a mapping of {', '.join(_KEYS)}"
        raise ValueError(msg)  # noqa: TRY004  wrong data, not a wrong program
    for key, value in found.items():
        if key not in _KEYS or not isinstance(value, str) or not value:
            msg = f"{where}.{key}: use {', '.join(_KEYS)}, each with a text"
            raise ValueError(msg)
    for key in ("namespace", "serviceAccount", "service"):
        if key not in found:
            msg = f"{where}: {key} is missing: add it"
            raise ValueError(msg)
    rule = Rule(found["namespace"], found["serviceAccount"], found.get("pod", "*"), found["service"])
    for pattern in (rule.namespace, rule.service_account, rule.pod):
        if "*" in pattern[:-1]:
            msg = f"{where}: {pattern!r:.80} has a * that is not at its end: use a name or a prefix and *"
            raise ValueError(msg)
    _check_service(rule.service, where)
    return rule


def _check_service(service: str, where: str) -> None:
    if any(sum(label.count(part) for part in _FILLED) > 1 for label in service.split(".")):
        msg = (
            f"{where}.service: {service!r:.80} fills a label twice, so two workloads could be one: add a dot"
        )
        raise ValueError(msg)
    sample = service
    for part in _FILLED:
        sample = sample.replace(part, "x")
    try:
        name = ServiceName(sample)
    except ValueError as error:
        msg = f"{where}.service: {error}"
        raise ValueError(msg) from None
    if name.reserved and name not in (GATEKEEPER, OPERATOR):
        msg = f"{where}.service: {name} is a name of the mesh itself: choose another"
        raise ValueError(msg)
