"""``mesh policy``: the policy of record, and the tools around policy files.

policy_check    check, schema       a file by itself
policy_test     test                calls with expected verdicts
policy_explain  explain             one call
policy_diff     diff                two policies
policy_apply    apply, rollback     what changes the policy of record
policy_record   get, history        what is on record
policy_observed observed            what the mesh was asked
policy_replay   replay              that, asked of another policy
policy_suggest  suggest             that, made a policy
"""

from __future__ import annotations

import click

from mesh.cli.policy_apply import apply, rollback
from mesh.cli.policy_check import check, schema
from mesh.cli.policy_diff import diff
from mesh.cli.policy_explain import explain
from mesh.cli.policy_observed import observed
from mesh.cli.policy_record import get, history
from mesh.cli.policy_replay import replay
from mesh.cli.policy_suggest import suggest
from mesh.cli.policy_test import test


@click.group()
def policy() -> None:
    """Check, test, explain, compare, apply and show policies; record, replay and suggest."""


for _command in (
    *(check, test, explain, diff, apply, get, history, rollback, schema),
    *(observed, replay, suggest),
):
    policy.add_command(_command)
