"""The host's command starts a worker from nothing: no environment, no site, wherever the package lies."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from services.lua_host.jail import launch
from tests.lua_host.jail.child import Child

SERVICES: Final = Path(launch.__file__).parents[2]
LUPA: Final = launch.roots()[1]
#: Packages of which no worker has any use: the mesh's, and large ones of Python's.
NOT_IN_A_WORKER: Final = {
    "mesh",
    "google",
    "grpc",
    "asyncio",
    "socket",
    "subprocess",
    "typing",
    "pathlib",
    "re",
}


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Give a place like site-packages with what a worker needs of this package, and other Lua."""
    for name in ("__init__.py", "lua_host/__init__.py", "lua_host/jail"):
        source, target = SERVICES / name, tmp_path / "services" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    (tmp_path / "services/lua_host/lua").mkdir()
    lua = {"main": "local f = ... python.as_function(f)('!' .. table.concat({select(2, ...)}, ' '))"}
    for name, text in {
        **lua,
        "sandbox": "text of b",
        "codec": "text of a",
        "codec_read": "part of a",
    }.items():
        (tmp_path / f"services/lua_host/lua/{name}.lua").write_text(text)
    (tmp_path / "services/lua_host/lua/README.md").write_text("no module")
    return tmp_path


@pytest.mark.parametrize("jailed", [True, False])
def test_the_command_starts_a_worker_with_the_package_s_lua(
    monkeypatch: pytest.MonkeyPatch, installed: Path, jailed: bool
) -> None:
    """In an empty environment, from another directory, with the name and the text of every module."""
    monkeypatch.setattr(launch, "roots", lambda: (str(installed), LUPA))
    with Child("", argv=launch.command(8 << 20, 1 << 16, jailed=jailed)) as child:
        assert child.receive() == b"mesh-lua/1 " + (b"jailed" if jailed else b"unsafe")
        assert child.receive() == b"codec text of a codec_read part of a sandbox text of b"
        assert child.receive() is None


def test_the_places_are_those_of_the_two_packages() -> None:
    """As directories that can stand on the path of a Python without site."""
    ours, lupas = map(Path, launch.roots())
    assert (ours / "services/lua_host/jail/worker.py").samefile(SERVICES / "lua_host/jail/worker.py")
    assert (lupas / "lupa/__init__.py").is_file()


def test_without_lupa_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lua is an extra."""
    launch.roots.cache_clear()
    monkeypatch.setattr(launch, "find_spec", lambda _: None)
    with pytest.raises(RuntimeError, match=r"sealmesh\[lua\]"):
        launch.command(1, 1, jailed=True)


def test_a_worker_imports_little() -> None:
    """Nothing of the mesh, nothing of gRPC, and none of the big modules of Python's library."""
    code = "import sys; sys.path += sys.argv[1:]; import services.lua_host.jail.worker; print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-B", "-c", code, *launch.roots()]
    modules = subprocess.run(command, env={}, check=True, capture_output=True, text=True).stdout.split()
    assert "services.lua_host.jail.worker" in modules
    assert {name.partition(".")[0] for name in modules} & NOT_IN_A_WORKER == set()


def test_the_library_comes_first(installed: Path) -> None:
    """A file beside the package cannot stand in for a module of Python's."""
    for name in ("io", "time", "gc", "ctypes", "resource"):
        (installed / f"{name}.py").write_text("raise SystemExit(9)")
    code = "import sys; sys.path += sys.argv[1:]; import services.lua_host.jail.worker"
    command = [sys.executable, "-I", "-S", "-B", "-c", code, str(installed), LUPA]
    assert subprocess.run(command, env={}, check=False).returncode == 0
