"""The proto files of a service, found and read: names to one FileDescriptorSet.

A ``.proto`` is compiled by protoc from grpcio-tools, in a process of its own; a ``.binpb`` is a set that was
compiled before, by protoc with ``--include_imports`` or by buf. Through the service's directory nothing is
read that lies outside of it; the operator's own include directories are the operator's. Whether what was read
can be used is for ``protos``.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from mesh.generate import protoc
from services.lua_host.checked import BadMessageError, Checker
from services.lua_host.manifest import Manifest
from services.lua_host.problems import Problem, ProblemsError
from services.lua_host.shapes import MAX_DEPTH

#: The largest set of descriptors, in bytes, with comments and positions.
MAX_SET: Final = 8 * 1024 * 1024
#: Seconds that protoc may take.
PATIENCE: Final = 30.0
#: Problems with one compilation that are told.
_MOST: Final = 20
_LINE: Final = re.compile(r"(.+?\.proto):(?:([0-9]+):[0-9]+:)? (.+)")
_SET: Final = Checker(FileDescriptorSet.DESCRIPTOR, MAX_SET, MAX_DEPTH)


class ProtoFiles:
    """Where the proto files of one service are looked for."""

    def __init__(self, directory: Path, manifest: Manifest, more: Sequence[Path] = ()) -> None:
        """Take the service's directory and manifest, and the operator's include directories."""
        self._directory, self._manifest = directory.absolute(), manifest
        self._own = [self._directory / name for name in manifest.includes]
        self._more = [path.absolute() for path in more]

    def read(self) -> FileDescriptorSet:
        """Read the files that the manifest names and all that they import, imports first.

        Raises ``ProblemsError``.
        """
        sources: list[Path] = []
        sets: list[tuple[str, FileDescriptorSet]] = []
        problems: list[Problem] = []
        for name in self._manifest.protos:
            try:
                path = self._find(name)
                if name.endswith(".proto"):
                    sources.append(path)
                else:
                    sets.append((name, self._read_set(name, path)))
            except ProblemsError as error:
                problems += error.problems
        if problems:
            raise ProblemsError(problems)
        if sources:
            sets.append(("", self._compiled(sources)))
        return self._merged(sets)

    def place(self, name: str) -> str:
        """Give where a file is that protoc calls so: as seen from the service's directory, or in full."""
        for root in (*self._own, *self._more):
            path = root / name  # the name itself, where protoc tells it in full
            if path.is_file():
                inside = path.is_relative_to(self._directory)
                return str(path.relative_to(self._directory) if inside else path)
        return name

    def _find(self, name: str) -> Path:
        for root in (self._directory, *self._more):
            if (root / name).is_file():
                self._check_inside(name, root)
                return root / name
        more = "" if self._more else ", or say with -I where it is"
        raise self._wrong(name, f"no such file: put it into the service's directory{more}")

    def _check_inside(self, name: str, root: Path) -> None:
        inside = (root / name).resolve().is_relative_to(self._directory.resolve())
        if not inside and root not in self._more:
            raise self._wrong(name, "leads out of the service's directory: put the file itself there")

    def _compiled(self, sources: Sequence[Path]) -> FileDescriptorSet:
        # Not this process's secrets: protoc reads what strangers may have written.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MESH_")}
        roots = [f"--proto_path={root}" for root in (*self._own, *self._more)]
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "set.binpb"
            options = ["--include_imports", "--include_source_info", f"--descriptor_set_out={out}"]
            try:
                wrong = protoc([*roots, *options, *map(str, sources)], environment, PATIENCE)
            except subprocess.TimeoutExpired:
                raise self._wrong("", f"protoc took longer than {PATIENCE:g} s") from None
            if wrong:
                raise ProblemsError([self._told(line) for line in wrong[:_MOST]])
            compiled = self._read_set("", out)
        for file in compiled.file:
            self._check_import(file.name)
        return compiled

    def _check_import(self, name: str) -> None:
        for root in (*self._own, *self._more):
            if (root / name).is_file():
                return self._check_inside(name, root)
        return None

    def _told(self, line: str) -> Problem:
        found = _LINE.fullmatch(line)
        if not found:
            return self._manifest.problem(line, "protos")
        said = found[3].rstrip(".")
        return Problem(self.place(found[1]), int(found[2] or 0), said[:1].lower() + said[1:])

    def _read_set(self, name: str, path: Path) -> FileDescriptorSet:
        try:
            size = path.stat().st_size
            if size > MAX_SET:
                raise self._wrong(name, f"{size} bytes of descriptors are too many: {MAX_SET} are the limit")
            return FileDescriptorSet.FromString(_SET.clean(path.read_bytes()))
        except OSError as error:
            raise self._wrong(name, f"cannot be read: {error.strerror}") from None
        except BadMessageError as error:
            raise self._wrong(name, f"not a file of descriptors: {error}") from None

    def _merged(self, sets: Iterable[tuple[str, FileDescriptorSet]]) -> FileDescriptorSet:
        known: dict[str, FileDescriptorProto] = {}
        merged = FileDescriptorSet()
        for name, found in sets:
            for file in found.file:
                if file.name not in known:
                    known[file.name] = file
                    merged.file.append(file)
                elif _bare(known[file.name]) != _bare(file):
                    raise self._wrong(name, f"{file.name} is there twice, and not the same: remove one")
        return merged

    def _wrong(self, name: str, text: str) -> ProblemsError:
        return ProblemsError(
            [self._manifest.problem(f"{name}: {text}" if name else text, "protos", item=name)]
        )


def _bare(file: FileDescriptorProto) -> bytes:
    bare = FileDescriptorProto()
    bare.CopyFrom(file)
    bare.ClearField("source_code_info")
    return bare.SerializeToString(deterministic=True)
