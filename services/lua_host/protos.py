"""The messages and methods of a service: its proto files, judged, as descriptors of its own.

Each service has its own pool: two may define the same names differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from mesh.core.names import FullMethod
from services.lua_host.manifest import Manifest
from services.lua_host.problems import Problem, ProblemsError
from services.lua_host.proto_files import ProtoFiles
from services.lua_host.unsupported import Lines, unsupported

#: The most fields that all messages together have.
MAX_FIELDS: Final = 20_000
#: The largest set of descriptors that a worker is given, in bytes.
MAX_RAW: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Rpc:
    """A method, as its proto defines it."""

    name: FullMethod
    service: str
    """Full name of the gRPC service."""
    input: Descriptor
    output: Descriptor
    client_streaming: bool
    server_streaming: bool
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Protos:
    """All that the protos of a service define."""

    raw: bytes
    """A FileDescriptorSet for the worker: without comments, positions and options of others' making."""
    methods: Mapping[str, Rpc]
    """By their full names."""
    services: frozenset[str]
    """Full names of the gRPC services."""
    pool: DescriptorPool

    @classmethod
    def load(cls, directory: Path, manifest: Manifest, includes: Sequence[Path] = ()) -> Protos:
        """Read the protos that a manifest names; raise ``ProblemsError``.

        ``includes``: where else than in its directory they, and what they import, may be.
        """
        files = ProtoFiles(directory, manifest, includes)
        return _Building(files, files.read()).done(manifest)

    def message(self, name: str) -> type[Message]:
        """Give the class of a message by its full name; raise ``KeyError``."""
        return GetMessageClass(self.pool.FindMessageTypeByName(name))


def _fields(message: DescriptorProto) -> int:
    return len(message.field) + sum(map(_fields, message.nested_type))


class _Building:
    """A set of files on its way into a pool."""

    def __init__(self, files: ProtoFiles, found: FileDescriptorSet) -> None:
        self._files, self._found = files, found
        self._pool = DescriptorPool()
        self._problems: list[Problem] = []
        self._methods: dict[str, Rpc] = {}
        self._services: set[str] = set()

    def done(self, manifest: Manifest) -> Protos:
        lines = {file.name: Lines(file) for file in self._found.file}
        for file in self._found.file:
            self._judge(file, lines[file.name])
            file.ClearField("source_code_info")
        self._check()
        self._bound(manifest)
        raw = self._found.SerializeToString()
        if len(raw) > MAX_RAW:
            text = f"{len(raw)} bytes of descriptors are too many: {MAX_RAW} are the limit"
            raise ProblemsError([manifest.problem(text, "protos")])
        for file in self._found.file:
            self._add(file)
        self._check()
        for file in self._found.file:
            self._note(file, lines[file.name])
        self._check()
        return Protos(raw, self._methods, frozenset(self._services), self._pool)

    def _judge(self, file: FileDescriptorProto, lines: Lines) -> None:
        place = self._files.place(file.name)
        self._problems += [Problem(place, line, text) for line, text in unsupported(file, lines)]

    def _bound(self, manifest: Manifest) -> None:
        fields = sum(_fields(message) for file in self._found.file for message in file.message_type)
        if fields > MAX_FIELDS:
            text = f"{fields} fields are too many: {MAX_FIELDS} are the limit"
            raise ProblemsError([manifest.problem(text, "protos")])

    def _add(self, file: FileDescriptorProto) -> None:
        try:
            self._pool.AddSerializedFile(file.SerializeToString())
        except TypeError as error:
            said = " ".join(str(error).split()).partition("descriptor pool: ")
            text = f"cannot be used, is an import missing? {said[2] or said[0]}"
            self._problems.append(Problem(self._files.place(file.name), 0, text))

    def _note(self, file: FileDescriptorProto, lines: Lines) -> None:
        place = self._files.place(file.name)
        for number, service in enumerate(file.service):
            name = f"{file.package}.{service.name}" if file.package else service.name
            self._services.add(name)
            for index, method in enumerate(service.method):
                line = lines.of_method(number, index)
                try:
                    full = FullMethod(f"/{name}/{method.name}")
                except ValueError as error:
                    self._problems.append(Problem(place, line, str(error)))
                else:
                    self._methods[full.text] = self._rpc(full, name, method, place, line)

    def _rpc(
        self, full: FullMethod, service: str, method: MethodDescriptorProto, file: str, line: int
    ) -> Rpc:
        found = self._pool.FindServiceByName(service).FindMethodByName(method.name)
        for kind in (found.input_type, found.output_type):
            try:
                GetMessageClass(kind)
            except RecursionError:
                what = f"{kind.full_name} leads through too many types"
                raise ProblemsError([Problem(file, line, what)]) from None
        return Rpc(
            name=full,
            service=service,
            input=found.input_type,
            output=found.output_type,
            client_streaming=method.client_streaming,
            server_streaming=method.server_streaming,
            file=file,
            line=line,
        )

    def _check(self) -> None:
        if self._problems:
            raise ProblemsError(sorted(self._problems))
