"""``mesh generate`` and ``mesh demo``: stubs for one's own services; a mesh to look at."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mesh.cli.errors import CliError
from mesh.generate import GenerateError
from mesh.generate import generate as generate_stubs


@click.command()
@click.argument("protos", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE.proto...")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where the packages go."
)
@click.option(
    "-I",
    "--include",
    "includes",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Directory that imports are relative to; may be repeated. [default: the one that holds all files]",
)
def generate(protos: tuple[Path, ...], out: Path, includes: tuple[Path, ...]) -> None:
    """Make typed Python stubs for protos."""
    try:
        written = generate_stubs(protos, out, includes)
    except GenerateError as error:
        raise CliError(str(error)) from None
    for path in written:
        click.echo(path)


@click.command()
@click.option("--keep", is_flag=True, help="Leave the mesh up afterwards, and say how to call it.")
@click.option("--otlp", metavar="URL", help="Send traces and metrics there, by OTLP: http://localhost:4318.")
def demo(*, keep: bool, otlp: str | None) -> None:
    """Start a mesh and a shop, and attack them."""
    try:
        from examples.shop.demo import main  # noqa: PLC0415  nobody else needs it
    except ModuleNotFoundError as error:
        raise CliError(
            f"the demo is not installed ({error.name}): run it from a clone with make demo"
        ) from None
    sys.exit(main(keep=keep, otlp=otlp))
