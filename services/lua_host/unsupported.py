"""What protos may say that the codec in ``lua/codec.lua`` does not support, found with its line.

A worker would refuse the same, later and with less to tell. Lines come from the positions that protoc notes;
a set that was compiled without them has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

_Path: TypeAlias = tuple[int, ...]

# Numbers of fields in descriptor.proto, of which the paths of positions are made (SourceCodeInfo.Location).
_MESSAGES, _SERVICES, _EXTENSIONS, _SYNTAX = 4, 6, 7, 12
_FIELDS, _NESTED, _INNER_EXTENSIONS = 2, 3, 6
_METHODS: Final = 2
#: Options may be extended: that is how they are made.
_OPTIONS: Final = ".google.protobuf."


class Lines:
    """The lines of a file's definitions; 0 where nothing is known."""

    def __init__(self, file: FileDescriptorProto) -> None:
        """Take the positions from a file."""
        self._lines: dict[_Path, int] = {}
        for location in file.source_code_info.location:
            if location.span:
                self._lines.setdefault(tuple(location.path), location.span[0] + 1)

    def of(self, *path: int) -> int:
        """Give the line of a definition."""
        return self._lines.get(path, 0)

    def of_method(self, service: int, method: int) -> int:
        """Give the line of a method, by its place in its service and the place of that."""
        return self.of(_SERVICES, service, _METHODS, method)


def unsupported(file: FileDescriptorProto, lines: Lines) -> Iterator[tuple[int, str]]:
    """Give the line of each thing that is not supported, and what it is."""
    if file.syntax not in {"", "proto2", "proto3"}:
        yield lines.of(_SYNTAX), f"{file.syntax} are not supported: use syntax proto3 or proto2"
    yield from _extensions(file.extension, (_EXTENSIONS,), lines)
    waiting: list[tuple[_Path, DescriptorProto]] = [
        ((_MESSAGES, index), message) for index, message in enumerate(file.message_type)
    ]
    while waiting:
        path, message = waiting.pop()
        yield from _of_message(message, path, lines)
        waiting += [((*path, _NESTED, index), inner) for index, inner in enumerate(message.nested_type)]


def _of_message(message: DescriptorProto, path: _Path, lines: Lines) -> Iterator[tuple[int, str]]:
    yield from _extensions(message.extension, (*path, _INNER_EXTENSIONS), lines)
    if message.options.message_set_wire_format:
        yield lines.of(*path), f"{message.name} has the wire format of message sets, which is not supported"
    for index, field in enumerate(message.field):
        if field.type == FieldDescriptorProto.TYPE_GROUP:
            what = f"{message.name}.{field.name} is a group, and groups are not supported: use a message"
            yield lines.of(*path, _FIELDS, index), what


def _extensions(
    extensions: Iterable[FieldDescriptorProto], path: _Path, lines: Lines
) -> Iterator[tuple[int, str]]:
    for index, extension in enumerate(extensions):
        if not extension.extendee.startswith(_OPTIONS):
            what = f"extensions are not supported: {extension.name} of {extension.extendee.lstrip('.')}"
            yield lines.of(*path, index), what
