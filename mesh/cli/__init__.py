"""The command ``mesh``.

    domain     init, up           a trust domain, and the mesh that runs on it (``supervisor``)
    tokens     token create …     join tokens
    policies   policy apply …     the policy of record (``policy_file`` reads YAML)
    keys       keys list …        the mesh's own keys; ``keks`` the key-encryption key
    revocations  revoke, ban …    who is a member no more
    backups    backup, restore    auth's state in a file, and again
    databases  replica            one more auth on a PostgreSQL database
    audits     audit verify …     the audit log (``audit_source`` reads it, ``audit_filter`` chooses from it)
    status     status             what is in force, and who is there
    check      check              what is wrong (``checks`` judges)
    edges      edges              who calls whom
    stat       stat               how many calls, and how long they took, by edge and method
    tap        tap                calls, while they end
    diagnostics diagnostics       what a bug report needs
    describe   describe           why a call was refused (``causes``), or of a service all (``dossier``)
    workloads  run, sidecar       an application's way into the mesh
    svid       svid               certificates in files, for proxies
    lua        lua run …          services in Lua
    inject     inject             sidecars into Kubernetes manifests
    making     generate, demo     stubs; a mesh to look at
    completion completion         what shells complete

``errors`` has the exit statuses; docs/cli.md tells them, and every command, to users.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import click

from mesh.cli.audits import audit
from mesh.cli.backups import backup, restore
from mesh.cli.check import check
from mesh.cli.completion import completion
from mesh.cli.databases import replica
from mesh.cli.describe import describe
from mesh.cli.diagnostics import diagnostics
from mesh.cli.domain import init, up
from mesh.cli.edges import edges
from mesh.cli.errors import OneLineGroup
from mesh.cli.inject import inject
from mesh.cli.keks import kek
from mesh.cli.keys import keys
from mesh.cli.lua import lua
from mesh.cli.making import demo, generate
from mesh.cli.policies import policy
from mesh.cli.revocations import ban, revoke, revoked, unban
from mesh.cli.stat import stat
from mesh.cli.status import status
from mesh.cli.svid import svid
from mesh.cli.tap import tap
from mesh.cli.tokens import token
from mesh.cli.workloads import run, sidecar


def _version() -> str:
    try:
        return version("sealmesh")
    except PackageNotFoundError:
        return "unknown: not installed"


@click.group("mesh", cls=OneLineGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), prog_name="mesh")
def cli() -> None:
    """Every call between two services under an identity, sealed, and checked against one policy."""
    if os.environ.get("NO_COLOR"):
        click.get_current_context().color = False
    # Commands that talk for long set up logging themselves; the others say all they have to say in one line.
    logging.getLogger("mesh").addHandler(logging.NullHandler())


for _command in (
    init,
    replica,
    up,
    status,
    check,
    edges,
    stat,
    tap,
    describe,
    diagnostics,
    token,
    policy,
    audit,
    keys,
    kek,
    revoke,
    ban,
    unban,
    revoked,
    backup,
    restore,
    run,
    sidecar,
    svid,
    inject,
    lua,
    generate,
    demo,
    completion,
):
    cli.add_command(_command)


def main(command: Sequence[str] = ()) -> None:
    """Run the command line, as if it began with ``command``."""
    cli.main([*command, *sys.argv[1:]])
