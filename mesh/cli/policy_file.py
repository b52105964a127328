"""Policy files: YAML or JSON for people, canonical JSON for the mesh.

``yaml_file`` reads them; what a document means is for ``mesh.core`` to judge, here and again in auth.
"""

from __future__ import annotations

import json
from contextlib import suppress
from zoneinfo import available_timezones

import yaml

from mesh.cli.errors import CliError, Exit
from mesh.cli.places import place
from mesh.cli.yaml_file import load_yaml, one_line, read_text
from mesh.core.burden import check_burden
from mesh.core.policy import Policy, PolicyError
from mesh.core.reach import check_reach
from mesh.core.zones import check_zones
from mesh.uncollected import uncollected


def load_policy(name: str) -> Policy:
    """Read a policy from a file, or from standard input for ``-``, as strictly as auth does.

    Raises ``CliError`` in one line: file, line and column, the field, and what to do.
    """
    with uncollected():
        return _load(name, read_text(name))


def _load(name: str, text: str) -> Policy:
    if text.lstrip().startswith("{"):
        # JSON is read as it is: that is many times faster. Where something is wrong, only YAML says where.
        with suppress(PolicyError):
            return _checked(text)
    with one_line(name):
        root, value = load_yaml(text)
        try:
            return _checked(json.dumps(value))
        except PolicyError as error:
            line, column = place(root, error, text)
            raise CliError(f"{name}:{line}:{column}: {error}", Exit.REFUSED) from None


def _checked(text: str) -> Policy:
    policy = Policy.parse(text)
    check_reach(policy)
    check_burden(policy)
    check_zones(policy, available_timezones)
    return policy


def read_policy(name: str) -> bytes:
    """Read a policy like ``load_policy``, as canonical JSON."""
    return load_policy(name).encode()


def write_policy(document: bytes) -> str:
    """Give a policy as YAML, to be read, changed and applied again."""
    shown: str = yaml.safe_dump(json.loads(document), sort_keys=False, default_flow_style=False, width=110)
    return shown
