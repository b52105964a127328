"""Write the generated code of this repository, or with ``--check`` say whether what is there is fresh.

To be run by the Python of ``.venv-proto``, whose pins make the same bytes on every machine: ``make proto``.
"""

import runpy
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The file alone, not the package: the package may need what is to be generated here.
generate = runpy.run_path(str(ROOT / "mesh" / "generate.py"))["generate"]

# Where protos lie, and the root of their imports; the generated packages go below the repository's own root.
TREES = {"protos": "protos", "examples/shop/v1": ".", "tests/interop": "."}


def main() -> int:
    """Return the exit status: 1 if ``--check`` found anything stale."""
    check = "--check" in sys.argv[1:]
    stale: list[Path] = []
    for source, include in TREES.items():
        with tempfile.TemporaryDirectory() as scratch:
            fresh = _generated(ROOT / source, ROOT / include, Path(scratch))
            stale += _differences(fresh) if check else _replace(fresh)
    if check and stale:
        print(f"stale: {' '.join(str(path) for path in stale)}: run 'make proto' and commit", file=sys.stderr)
    return int(check and bool(stale))


def _generated(source: Path, include: Path, scratch: Path) -> dict[Path, bytes]:
    files = generate(sorted(source.rglob("*.proto")), scratch, [include])
    return {file.relative_to(scratch): file.read_bytes() for file in files}


def _differences(fresh: dict[Path, bytes]) -> list[Path]:
    """Return what is missing, different or left over in the directories of the fresh files."""
    present = {
        file.relative_to(ROOT): file.read_bytes()
        for directory in {path.parent for path in fresh}
        for file in (ROOT / directory).glob("*_pb2*.py*")
    }
    return sorted(path for path in fresh | present if fresh.get(path) != present.get(path))


def _replace(fresh: dict[Path, bytes]) -> list[Path]:
    changed = _differences(fresh)
    for path in changed:
        file = ROOT / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if path in fresh:
            file.write_bytes(fresh[path])
        else:
            file.unlink()
        print(f"{'wrote' if path in fresh else 'removed'} {path}")
    return changed


if __name__ == "__main__":
    sys.exit(main())
