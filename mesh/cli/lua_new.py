"""``mesh lua new``: a service in Lua that runs as it is, to be changed. Its files are in ``starter/``."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

import click

from mesh.cli.errors import CliError
from mesh.cli.kinds import service
from mesh.core.names import ServiceName

#: What a new service is made from, and the names of its files.
_STARTER: Final = {
    "service.toml": "service.toml",
    "service.lua": "$stem.lua",
    "service.proto": "$stem.proto",
    "tests.yaml": "tests.yaml",
}
_NEXT: Final = """\
$directory holds a service that runs: $files

Let others call it: add this to the mesh's policy (mesh policy get), for mesh policy apply replaces it whole.
What it calls itself needs a rule at each destination.

$policy
Look at it, try it, run it:

  mesh lua check $directory
  mesh lua test $directory
  mesh lua run $directory
"""


@click.command()
@click.argument("name", type=service, metavar="NAME")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where it goes.  [default: ./NAME]",
)
def new(name: ServiceName, directory: Path | None) -> None:
    """Make a service that runs, to be changed."""
    if name.reserved:
        raise click.BadParameter(f"{name} belongs to the mesh: choose another name")
    directory = directory or Path(name.text)
    words = _words(name)
    contents = {
        directory / Template(target).substitute(words): _starter(source, words)
        for source, target in _STARTER.items()
    }
    for path in contents:
        if path.exists():
            raise CliError(f"{path} is there already: nothing was written, choose another --dir")
    directory.mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    policy = "".join(f"  {line}\n" for line in _starter("policy.yaml", words).splitlines())
    names = ", ".join(path.name for path in contents)
    click.echo(Template(_NEXT).substitute(directory=directory, files=names, policy=policy), nl=False)


def _words(name: ServiceName) -> dict[str, str]:
    """Give what stands for what in the starter's files, by a service's name: ``billing.big-ledger``."""
    parts = re.split("[.-]", name.text)
    return {
        "name": name.text,
        "stem": name.text.replace(".", "-"),
        "package": f"{name.text.replace('-', '_')}.v1",
        "service": "".join(part.capitalize() for part in parts) + "Service",
    }


def _starter(source: str, words: dict[str, str]) -> str:
    template = files("mesh.cli").joinpath("starter", source).read_text(encoding="utf-8")
    return Template(template).substitute(words)
