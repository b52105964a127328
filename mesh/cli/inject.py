"""``mesh inject``: what the injector does to pods in a cluster, done to a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from mesh.cli.completion import files
from mesh.cli.errors import CliError, Exit
from mesh.cli.yaml_file import read_text
from mesh.inject.documents import inject_text, load_settings
from mesh.inject.errors import RefusedError

_T = TypeVar("_T")


@click.command()
@click.argument("file", metavar="FILE", shell_complete=files)
@click.option(
    "--settings",
    "settings_file",
    required=True,
    metavar="FILE",
    help="The injector's settings, as its ConfigMap has them.",
)
@click.option("--namespace", "-n", default="default", show_default=True, help="Of what names none itself.")
@click.option("--out", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Write here instead.")
def inject(file: str, settings_file: str, namespace: str, out: Path | None) -> None:
    """Put a sidecar into each pod of a file of Kubernetes manifests.

    FILE is YAML, - is standard input; the result goes to standard output. No cluster is needed.
    """
    settings = _refusing(settings_file, lambda: load_settings(read_text(settings_file)))
    made = _refusing(file, lambda: inject_text(read_text(file), namespace, settings))
    if out is None:
        click.echo(made, nl=False)
    else:
        out.write_text(made, encoding="utf-8")


def _refusing(name: str, work: Callable[[], _T]) -> _T:
    try:
        return work()
    except RefusedError as error:
        raise CliError(f"{name}: {error}", Exit.REFUSED) from None
