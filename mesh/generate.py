"""Typed stubs for a user's own protos: protoc from grpcio-tools, run apart.

protoc writes the messages, the gRPC plugin the stubs, and mypy-protobuf the types of both: clean under
``mypy --strict``, and good for ``grpc`` and ``grpc.aio`` alike. protoc runs in a process of its own and into
a temporary directory, so that its failure leaves ``out`` as it was. Imports nothing of the mesh: ``make
proto`` runs this file alone, where the mesh is not installed and its generated code may be missing.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

_MISSING = "the generator is not installed: pip install 'sealmesh[generate]'"
_TYPES = ("mypy", "mypy_grpc")  # the plugins, each with a script protoc-gen-<name>


class GenerateError(ValueError):
    """Stubs could not be generated; the message is one line that says what to do."""


def generate(protos: Sequence[Path], out: Path, includes: Sequence[Path] = ()) -> list[Path]:
    """Generate ``_pb2.py``, ``_pb2.pyi``, ``_pb2_grpc.py`` and ``_pb2_grpc.pyi`` for each of ``protos``.

    ``includes`` are the directories that imports are relative to, and the generated packages too; without
    any, it is the closest directory that holds all of ``protos``. Google's well-known types are always
    found. Returns the files written below ``out``, sorted. Raises ``GenerateError``.
    """
    files = [_existing(path, Path.is_file, "proto file") for path in protos]
    if not files:
        raise GenerateError("nothing to generate: name at least one .proto file")
    roots = [_existing(path, Path.is_dir, "include directory") for path in includes]
    with tempfile.TemporaryDirectory() as scratch:
        _protoc(files, roots or [Path(os.path.commonpath([file.parent for file in files]))], Path(scratch))
        return _move(Path(scratch), out)


def _existing(path: Path, is_kind: Callable[[Path], bool], kind: str) -> Path:
    if not is_kind(path):
        raise GenerateError(f"no such {kind}: {path}")
    # Not resolve(): protoc compares names, and a symlinked file belongs to the directory that names it.
    return Path(os.path.normpath(path.absolute()))


def _protoc(files: Sequence[Path], roots: Sequence[Path], out: Path) -> None:
    plugins = {name: _script(f"protoc-gen-{name}") for name in _TYPES}
    if None in plugins.values() or find_spec("grpc_tools") is None:
        raise GenerateError(_MISSING)
    wrong = protoc(
        [
            *(f"--plugin=protoc-gen-{name}={script}" for name, script in plugins.items()),
            *(f"--proto_path={root}" for root in roots),
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            *(f"--{name}_out=quiet:{out}" for name in _TYPES),
            *map(str, files),
        ]
    )
    if wrong:
        raise GenerateError(wrong[0])


def protoc(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None, seconds: float | None = None
) -> list[str]:
    """Run protoc; give its own lines about what is wrong, none if nothing is.

    Raises ``subprocess.TimeoutExpired``.
    """
    # -P: a directory called grpc_tools where the user stands is not the generator.
    command = [sys.executable, "-P", "-m", "grpc_tools.protoc", *arguments]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
        check=False,
        env=environment,
        timeout=seconds,
    )
    if not done.returncode:
        return []
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if ".proto:" in line and ": warning:" not in line]
    return errors or lines[-1:] or [f"protoc failed with status {done.returncode}"]


def _script(name: str) -> str | None:
    """Return the script ``name``: beside this interpreter, which may not be on the PATH, else on it."""
    return shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)


def _move(scratch: Path, out: Path) -> list[Path]:
    written = []
    for file in sorted(path for path in scratch.rglob("*") if path.is_file()):
        target = out / file.relative_to(scratch)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, target)
        except OSError as error:
            raise GenerateError(f"cannot write {target}: {error.strerror or error}") from error
        written.append(target)
    return written
