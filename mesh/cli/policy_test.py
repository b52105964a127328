"""``mesh policy test``: cases beside a policy, judged by the code that nodes judge with. Needs no mesh."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from mesh.cli.cases import Case, load_cases
from mesh.cli.completion import files
from mesh.cli.errors import CliError, Exit
from mesh.cli.output import harmless, output_option, show_json
from mesh.cli.policy_explain import placed
from mesh.cli.policy_file import load_policy
from mesh.cli.policy_observed import counted
from mesh.core.condition import Call
from mesh.core.names import AUTH, GATEKEEPER, OPERATOR, ServiceName
from mesh.core.nearest import instead, unjudged
from mesh.core.policy import Policy
from mesh.core.rules import ALLOW, DENY
from mesh.core.verdict import Judge, Verdict

#: How many rules without a case are named.
SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """One call of a case, and what came of it."""

    case: Case
    call: Call
    verdict: Verdict

    @property
    def passed(self) -> bool:
        """Whether it is what was expected."""
        decided = self.case.rule is None or self.case.rule == self.decider
        return self.verdict.word == self.case.expected and decided

    @property
    def decider(self) -> str | None:
        """The rule that decided; in audit the one that would have denied."""
        if self.verdict.audited and self.verdict.audited.rule:
            return self.verdict.audited.rule
        return self.verdict.rule


@click.command()
@click.argument("policy", shell_complete=files)
@click.argument("cases", nargs=-1, shell_complete=files)
@output_option
def test(policy: str, cases: tuple[str, ...], output: str) -> None:
    """Judge the calls in each CASES file under POLICY; status 1 if one is not what is expected.

    Without CASES it is the file beside POLICY: policy.test.yaml for policy.yaml.
    """
    read = load_policy(policy)
    files = cases or (str(Path(policy).with_suffix(".test.yaml")),)
    outcomes = list(_outcomes(Judge(read), [case for file in files for case in load_cases(file)]))
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if output == "json":
        show_json([_data(outcome) for outcome in outcomes])
    else:
        for outcome in failed:
            click.echo(_line(outcome))
            for line in _reasons(read, outcome):
                click.echo(f"  {line}")
        for note in _notes(read, outcomes):
            click.echo(f"note: {note}")
        click.echo(f"{counted(len(outcomes))}, {len(failed)} not as expected")
    if failed:
        raise CliError(f"{policy}: of {counted(len(outcomes))}, {len(failed)} not as expected", Exit.FAILED)


def _outcomes(judge: Judge, cases: list[Case]) -> Iterator[Outcome]:
    for case in cases:
        for call in case.calls:
            yield Outcome(case, call, judge.verdict(call))


def _line(outcome: Outcome) -> str:
    case, call = outcome.case, outcome.call
    name = f"{harmless(case.name)}: " if case.name else ""
    expected = case.expected if case.rule is None else f"{case.expected} by {case.rule!r}"
    return (
        f"{case.place}: {name}{call.source} -> {call.destination} {call.method}: "
        f"expected {expected}, is {outcome.verdict.word}: {outcome.verdict.why}"
    )


def _reasons(policy: Policy, outcome: Outcome) -> Iterator[str]:
    """Say why the rule that was to decide does not apply, or else the one that comes nearest to it."""
    section = policy.section(ServiceName(outcome.call.destination))
    wanted = outcome.case.rule if outcome.case.rule != outcome.decider else None
    if wanted is not None and all(rule.name != wanted for _, rule in section.rules("")):
        yield f"{outcome.call.destination} has no rule {wanted!a:.80}: is it spelt right?"
        return
    if wanted is None and outcome.decider is not None and not outcome.verdict.permitted:
        found = [rule for rule in section.deny if rule.name == outcome.decider]
        yield from filter(None, (unjudged(rule, outcome.call) for rule in found))
        return
    effect = DENY if outcome.verdict.word == "allow" else ALLOW
    near = instead(section, outcome.call, effect, wanted)
    if near is not None:
        yield f"{'nearest: ' if wanted is None else ''}{placed(near.placed)}"
        yield from (f"  {lack.text}" for lack in near.lacks)


def _data(outcome: Outcome) -> dict[str, object]:
    return {
        "place": outcome.case.place,
        "name": outcome.case.name,
        "source": outcome.call.source,
        "destination": outcome.call.destination,
        "method": outcome.call.method,
        "expected": outcome.case.expected,
        "verdict": outcome.verdict.word,
        "rule": outcome.decider,
        "passed": outcome.passed,
    }


def _notes(policy: Policy, outcomes: list[Outcome]) -> Iterator[str]:
    known = {name.text for name in (*policy.services, AUTH, GATEKEEPER, OPERATOR)}
    asked = {name for outcome in outcomes for name in (outcome.call.source, outcome.call.destination)}
    for name in sorted(asked - known):
        yield f"the policy has no service {name!r}: is it spelt right?"
    decided = {(outcome.call.destination, outcome.decider) for outcome in outcomes}
    untried = [
        rule.name
        for name, section in policy.services.items()
        for _, rule in section.rules("")
        if (name.text, rule.name) not in decided
    ]
    if untried:
        more = f" and {len(untried) - SHOWN} more" if len(untried) > SHOWN else ""
        yield f"no case is decided by {', '.join(untried[:SHOWN])}{more}"
