"""How lists are shown: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

_F = TypeVar("_F", bound=Callable[..., object])

#: The least width of a column that is folded.
_FOLDED: Final = 8
_INDENT: Final = "    "


def _option(*kinds: str) -> Callable[[_F], _F]:
    return click.option(
        "-o",
        "--output",
        type=click.Choice(kinds),
        default="table",
        show_default=True,
        help="How to show it.",
    )


output_option = _option("table", "json")
#: For commands whose table has more columns than most people want to see.
wide_option = _option("table", "wide", "json")


def harmless(text: str) -> str:
    """Give a text in one line, with whatever a terminal would obey written out."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def show_json(value: Any) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]], whole: Sequence[str] = ()) -> None:
    """Print rows under their columns, as wide as they are when they do not go to a terminal.

    On a terminal that is too narrow the cells are folded, but for those of the columns in ``whole``; where
    those alone fill it, each row is told in several lines, each cell behind its column's name. Nothing is
    left out. What a terminal would obey is written out, whoever said it.
    """
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415  takes longer to load than most commands to run
    from rich.cells import cell_len  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    rows = [[harmless(cell) for cell in row] for row in rows]
    wide = [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]
    console = Console()
    if not console.is_terminal:
        console = Console(width=sum(wide) + 3 * len(wide))
    least = (most if name in whole else min(most, _FOLDED) for name, most in zip(columns, wide, strict=True))
    if sum(least) + 3 * len(wide) > console.width:
        _show_blocks(console, columns, rows, whole or columns[:1])
        return
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for name, most in zip(columns, wide, strict=True):
        kept = name in whole or most <= _FOLDED
        table.add_column(name, no_wrap=kept, overflow="fold", min_width=min(most, _FOLDED))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _show_blocks(
    console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], whole: Sequence[str]
) -> None:
    from rich.text import Text  # noqa: PLC0415

    for row in rows:
        cells = dict(zip(columns, row, strict=True))
        first = _packed([f"{name}: {cells[name]}" for name in columns if name in whole], console.width)
        rest = [
            f"{_INDENT}{name}: {cell}"
            for name, cell in cells.items()
            if name not in whole and cell not in ("", "-")
        ]
        for line in [*first, *rest]:
            console.print(Text(line), overflow="fold")


def _packed(texts: Sequence[str], width: int) -> list[str]:
    """Put as many texts in a line as there is room for; one that is too long for any has its own."""
    from rich.cells import cell_len  # noqa: PLC0415

    lines: list[str] = []
    for text in texts:
        joined = f"{lines[-1]}  {text}" if lines else text
        if lines and cell_len(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(f"{_INDENT}{text}" if lines else text)
    return lines


def counted(number: int, what: str) -> str:
    """Say how many there are of what is named in the plural, which ends in ``s``."""
    return f"{number} {what.removesuffix('s') if number == 1 else what}"


def instant(milliseconds: int) -> str:
    """Give a time as RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
