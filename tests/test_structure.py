"""The tree keeps its shape: docstrings, sizes, a pure core, honest locks, documented commands."""

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
MODULES = [
    path
    for package in ("mesh", "services", "sidecar")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "_pb2" not in path.name
]
CORE = [path for path in MODULES if ROOT / "mesh" / "core" in path.parents]
ENGINE = [path for path in MODULES if ROOT / "mesh" / "rpc" in path.parents]
LOCKS = sorted((ROOT / "requirements").iterdir())
MAX_LINES = 300

# All that the core may import: values in, values out. Clocks, files, sockets, the
# environment, logs, chance, threads and gRPC are missing on purpose; so is datetime, for its now().
PURE = {
    "__future__",
    "abc",
    "base64",
    "bisect",
    "cel_expr_python",  # parses and evaluates CEL: values in, values out
    "collections",
    "collections.abc",
    "cryptography",
    "dataclasses",
    "difflib",
    "enum",
    "functools",
    "google.protobuf.message",
    "google.protobuf.timestamp_pb2",
    "hashlib",
    "heapq",
    "hmac",
    "json",
    "ipaddress",
    "itertools",
    "math",
    "mesh.core",
    "mesh.v1.auth_pb2",
    "mesh.v1.condition_pb2",
    "mesh.v1.gatekeeper_pb2",
    "mesh.v1.signer_pb2",
    "mesh.v1.wire_pb2",
    "operator",
    "re",
    "string",
    "struct",
    "types",
    "typing",
}
# Built-ins that reach outside or around the imports.
IMPURE = {"open", "input", "print", "exec", "eval", "compile", "__import__", "breakpoint"}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the full name of each module imported, and of each name imported from one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_pure(name: str) -> bool:
    return any(name == pure or name.startswith(f"{pure}.") for pure in PURE)


def breaches(source: str) -> list[str]:
    tree = ast.parse(source)
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return [name for name in imports(tree) if not is_pure(name)] + [name for name in names if name in IMPURE]


def test_there_is_something_to_check() -> None:
    """An empty list would pass every other test here."""
    assert len(CORE) > 5
    assert len(ENGINE) > 5
    assert len(MODULES) > len(CORE)
    assert LOCKS


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_module_has_a_docstring(path: Path) -> None:
    """Every module says its job, what it leaves to others, and its invariants."""
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_module_is_a_small_room(path: Path) -> None:
    """No module outgrows what can be read in one go."""
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", CORE, ids=relative)
def test_core_is_pure(path: Path) -> None:
    """The core takes bytes and ``now``, and returns values."""
    assert breaches(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import os",
        "import grpc.aio",
        "from mesh import node",
        "from mesh.v1 import auth_pb2_grpc",
        "def f():\n    import time",
        "import collections, socket",
        "from datetime import datetime",
        "open('x')",
        "read = open",
    ],
)
def test_a_breach_of_the_core_is_seen(source: str) -> None:
    """The test above can fail."""
    assert breaches(source)


def beyond(source: str, *seam: str) -> list[str]:
    """Give what a module imports of this tree that is not within one of the packages of a seam."""
    own = [
        name for name in imports(ast.parse(source)) if name.split(".")[0] in {"mesh", "services", "sidecar"}
    ]
    return [name for name in own if not any(name.startswith(f"{package}.") for package in seam)]


@pytest.mark.parametrize("path", ENGINE, ids=relative)
def test_the_engine_stands_alone(path: Path) -> None:
    """What carries calls is given routes, keys and verdicts, and knows nobody who gives them."""
    assert beyond(path.read_text(), "mesh.core", "mesh.rpc", "mesh.v1") == []


def test_the_relay_knows_no_more_than_how_a_call_is_carried() -> None:
    """Where a sidecar's two sides meet there is no policy, no key, no directory and no name."""
    seam = ("mesh.core.metadata", "mesh.rpc.exchange", "mesh.rpc.hedging", "mesh.rpc.writing")
    assert beyond((ROOT / "sidecar" / "relay.py").read_text(), *seam) == []


@pytest.mark.parametrize(
    "source",
    ["import mesh", "from mesh import node", "from sidecar.relay import outward", "import mesh.slices"],
)
def test_a_breach_of_the_seam_is_seen(source: str) -> None:
    """The tests above can fail."""
    assert beyond(source, "mesh.core", "mesh.rpc", "mesh.v1")


@pytest.mark.parametrize("path", LOCKS, ids=relative)
def test_locks_are_hashed_and_hold_no_address(path: Path) -> None:
    """Each pin is exact, has hashes, and may come from any index."""
    text = path.read_text()
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host| @ ", text)
    pins = re.findall(r"^[^\s#].*$(?:\n +--hash=sha256:[0-9a-f]{64}.*$)+", text, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[^\s#]", text, re.MULTILINE))
    assert all(re.match(r"[a-z0-9.-]+==[^\s]+ ", pin) for pin in pins)


def test_npm_locks_hold_no_address() -> None:
    """npm takes each package from whatever registry its user has, and checks the integrity."""
    locks = [
        path
        for path in ROOT.glob("*/*/**/package-lock.json")
        if not {"node_modules", "site-packages"} & set(path.parts)
    ]
    assert locks
    for path in locks:
        assert '"resolved"' not in path.read_text(), relative(path)


def pinned(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", text, re.MULTILINE))


def declared() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [Requirement(line) for line in project["dependencies"] + extras["generate"] + extras["kubernetes"]]


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_locks_are_what_pyproject_says(requirement: Requirement) -> None:
    """The floor is exactly each lower bound, the newest lies above it: else run ``make lock``."""
    name = canonicalize_name(requirement.name)
    assert str(requirement.specifier) == f">={pinned('floor')[name]}"
    assert pinned("newest")[name] in requirement.specifier


def test_the_generator_is_no_newer_than_the_floor() -> None:
    """Generated code demands the grpcio that its generator came with: that is the floor's."""
    assert pinned("proto")["grpcio-tools"] == pinned("floor")["grpcio"]


def commands(group: click.Group, prefix: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        elif not command.hidden:
            yield f"{prefix} {name}"


def test_every_command_is_documented() -> None:
    """A command that neither the README nor docs/ mentions does not exist for its users."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    text = "\n".join(page.read_text() for page in pages)
    found = list(commands(import_module("mesh.cli").cli, "mesh"))
    assert found
    assert [command for command in found if not re.search(rf"\b{re.escape(command)}\b", text)] == []
