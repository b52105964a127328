"""docs/lua.md says what is so: settings, limits, and what can be allowed."""

from __future__ import annotations

import re
from pathlib import Path

from services.lua_host.library import CORE, MODULES, NEVER
from services.lua_host.limits import LIMITS
from services.lua_host.manifest import Manifest

PAGE = (Path(__file__).parents[2] / "docs" / "lua.md").read_text()


def rows(title: str) -> dict[str, list[str]]:
    """Give the cells of the tables in a section, by the first."""
    section = PAGE.partition(f"### {title}\n")[2].partition("\n#")[0]
    cells = [re.findall(r"[^|]+", line) for line in section.splitlines() if line.startswith("| `")]
    return {first.strip(" `"): [cell.strip() for cell in others] for first, *others in cells}


def test_every_limit_is_there_with_its_bounds() -> None:
    """As a manifest writes them."""
    told = {name: cells[:2] for name, cells in rows("Limits").items()}
    assert told == {
        name: [
            f'`"{bound.default}"`' if bound.read else f"`{bound.default}`",
            f"`{bound.least}`, `{bound.most}`" if bound.read else f"{bound.least}, {bound.most}",
        ]
        for name, bound in LIMITS.items()
    }


def test_all_that_can_be_allowed_is_there() -> None:
    """By module; and what needs no leave, and what gets none."""
    told = {module: set(cells[0].strip("`").split()) for module, cells in rows("What can be allowed").items()}
    assert told.pop("load") == {"itself:", "text", "only,", "in", "one", "piece"}
    assert told == MODULES
    for before, names in (("Always there", CORE), ("Never", NEVER)):
        (listed,) = re.findall(rf"^{before}: `([^`]*)`", PAGE, re.MULTILINE)
        assert set(listed.split()) == names


def test_the_example_is_a_manifest() -> None:
    """It has every key there is."""
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    manifest = Manifest.parse(example.encode())
    assert [grant.service.text for grant in manifest.calls] == ["inventory", "billing.ledger"]
    for key in ("name", "script", "protos", "includes", "serves", "allow", "state", "calls", "limits"):
        assert re.search(rf"^\[?{key}\b", example, re.MULTILINE)
