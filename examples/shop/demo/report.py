"""What the demo shows: steps, good calls and attacks, each on a line of its own as soon as it is over.

Without a terminal it is plain text of a fixed width; ``NO_COLOR`` is heeded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from examples.shop.demo.attack import BOOKED, NOTHING, UNBOOKED, Reached, Verdict
from examples.shop.demo.stage import Stage
from examples.shop.demo.traffic import GoodCall

#: Columns of the page where nobody can say how many there are, and at most.
PAGE = 150
_MARK, _CALLER, _GAP = 7, 17, 2
_REACHED = {
    NOTHING: "nothing",
    BOOKED: "an honest call",
    UNBOOKED: "an honest call, unbooked",
    Reached(2, 0): "two honest calls",
}


class Report:
    """Prints as things happen, and counts."""

    def __init__(self) -> None:
        """Print to standard output."""
        self._console = Console(highlight=False)
        if not self._console.is_terminal:
            self._console = Console(highlight=False, width=PAGE)
        self._began = time.monotonic()
        self.good = self.bad = self.stopped = self.through = 0

    def heading(self, text: str) -> None:
        """Begin a part."""
        self._console.print(Text(f"\n{text}", style="bold"))

    def note(self, text: str) -> None:
        """Say something by the way."""
        self._console.print(Text(f"  {text}"), soft_wrap=True)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Say what is being set up, and how long it took."""
        began = time.monotonic()
        with self._console.status(text):
            yield
        took = f"{time.monotonic() - began:5.2f} s"
        self._console.print(Text.assemble(f"  {text:<98} ", (took, "dim")), soft_wrap=True)

    def good_call(self, call: GoodCall, told: str) -> None:
        """Show a good call that succeeded."""
        self.good += 1
        self._call(("ok  ", "green"), call, told)

    def bad_call(self, call: GoodCall, error: str) -> None:
        """Show a good call that did not."""
        self.bad += 1
        self._call(("FAIL", "bold red"), call, error)

    def _call(self, mark: tuple[str, str], call: GoodCall, told: str) -> None:
        line = Text.assemble("  ", mark, f" {call.name:<46} ", (f"{call.way:<40} ", "dim"), told)
        self._console.print(line, soft_wrap=True)

    def attacks(self, stand: str) -> None:
        """Begin the table of the attacks from one place."""
        self.heading(stand)
        self._row("", "what is tried", "what stops it", "the caller gets", "payments gets", style="dim")

    def verdict(self, verdict: Verdict) -> None:
        """Add an attack that is over to the table."""
        reached = _REACHED.get(verdict.reached, str(verdict.reached))
        if verdict.stopped:
            self.stopped += 1
            mark, by, style = "stopped", str(verdict.attack.stop), "green"
        else:
            self.through += 1
            mark, by, style = "THROUGH", verdict.fault, "bold red"
        self._row(mark, verdict.attack.name, by, str(verdict.seen), reached, mark_style=style)

    def _row(self, *cells: str, style: str = "", mark_style: str = "") -> None:
        # A table of one row, so that it shows at once, also where nothing can be drawn over.
        table = Table.grid(padding=(0, _GAP, 0, 0))
        styles = (mark_style, style, style, style, style)
        for width, column_style in zip(_widths(min(self._console.width, PAGE)), styles, strict=True):
            table.add_column(width=width, style=column_style)
        table.add_row(*map(Text, cells))
        self._console.print(Padding(table, (0, 0, 0, _GAP), expand=False))

    def how_to_call(self, shop: Stage, directory: Path) -> None:
        """Say what stays up and how to call it."""
        data, beside = directory / "data", Path(sys.executable).with_name("mesh")
        mesh = beside if beside.exists() else "mesh"
        buy = f"{sys.executable} -m examples.shop.customer --frontend {shop.frontend_at} mug 2"
        self.heading("The shop stays open until Ctrl-C")
        for what, how in (
            ("buy two mugs", buy),
            ("see what is in force, and who is there", f"{mesh} status --data {data}"),
            ("see the policy; change it and apply it again", f"{mesh} policy get --data {data}"),
            (
                "call orders as frontend's application does, with any gRPC client in plaintext",
                shop.orders_socket,
            ),
            ("call any destination so, named in metadata mesh-to", shop.mesh_port),
            ("read what each part tells its operator", f"tail -f {directory}/*.log"),
        ):
            self.note(f"{what}:\n      {how}")

    def summary(self) -> int:
        """Say how it went; give the exit status."""
        calls, attacks = self.good + self.bad, self.stopped + self.through
        failed = self.bad or self.through or not calls or not attacks
        text = (
            f"{self.good} of {calls} good calls succeeded, {self.stopped} of {attacks} attacks were stopped"
        )
        took = f" in {time.monotonic() - self._began:.1f} s"
        self._console.print(
            Text.assemble("\n", (text, "bold red" if failed else "bold green"), (took, "dim"))
        )
        return 1 if failed else 0


def _widths(page: int) -> tuple[int, int, int, int, int]:
    """Divide a page among mark, attack, what stops it, what the caller gets and what payments gets."""
    rest = max(page - _MARK - _CALLER - 5 * _GAP, 30)
    attack, stop = rest * 38 // 100, rest * 40 // 100
    return _MARK, attack, stop, _CALLER, rest - attack - stop
