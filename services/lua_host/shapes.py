"""How deep the messages of a type can get, and a look at one message that may be too deep.

Protobuf's library has one limit of depth for all; and it takes any bytes for a string of proto2. Where a type
allows neither to go wrong, which is nearly always, there is nothing to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

#: The most levels that may be allowed. Protobuf's library discards unknown fields down to level 63, and says
#: nothing of those that it leaves below.
MAX_DEPTH: Final = 60
#: Messages that are looked at in one.
MAX_LOOKS: Final = 20_000
#: Bytes that each level takes at least: a tag and a length.
LEVEL: Final = 2


class TooDeepError(ValueError):
    """A message has more levels than it may have."""


class TooManyError(ValueError):
    """A message has more parts than are looked at."""


class NotTextError(ValueError):
    """A string is not UTF-8. The text is the field's name."""


class _Left:
    """How many more messages are looked at: each costs the host's loop some microseconds."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = MAX_LOOKS

    def spend(self) -> None:
        self.count -= 1
        if self.count < 0:
            raise TooManyError


_Look: TypeAlias = Callable[[Any, "_Part", int, _Left], None]


@dataclass(slots=True)
class Shape:
    """A type of messages."""

    height: int = 0
    """Levels that can be below a message, or anything above ``MAX_DEPTH``."""
    loose: bool = False
    """Whether there are strings in it, at any level, that are not known to be UTF-8."""
    parts: list[_Part] = field(default_factory=list)

    def look(self, message: Any, room: int) -> None:
        """Look at a message that may have ``room`` levels below it.

        Raises ``TooDeepError``, ``TooManyError`` or ``NotTextError``.
        """
        self.look_within(message, room, _Left())

    def look_within(self, message: Any, room: int, left: _Left) -> None:
        """Look at a message in another."""
        left.spend()
        present = None if self.loose else {one.name for one, _ in type(message).ListFields(message)}
        for part in self.parts:
            if (part.height > room or part.loose) and (present is None or part.name in present):
                part.look(message, part, room - part.levels, left)

    def settle(self) -> bool:
        """Take on what the parts say by now; tell whether that was anything new."""
        before = self.height, self.loose
        self.height = max((part.height for part in self.parts), default=0)
        self.loose = any(part.loose for part in self.parts)
        return before != (self.height, self.loose)


_LEAF: Final = Shape()
_LOOSE: Final = Shape(loose=True)


@dataclass(frozen=True, slots=True)
class _Part:
    """A field that can be wrong: how to look at it, what is in it, and how many levels it adds to that."""

    name: str
    look: _Look
    inside: Shape
    levels: int

    @property
    def height(self) -> int:
        return self.levels + self.inside.height

    @property
    def loose(self) -> bool:
        return self.inside.loose


@lru_cache(64)
def _known(_pool: DescriptorPool) -> dict[str, Shape]:
    """Give the shapes known of a pool: a service has many methods, and settling takes its time."""
    return {}


def shape_of(descriptor: Descriptor) -> Shape:
    """Give the shape of a type."""
    known = _known(descriptor.file.pool)
    if descriptor.full_name not in known:
        known.update(_shapes(descriptor))
    return known[descriptor.full_name]


def _shapes(descriptor: Descriptor) -> dict[str, Shape]:
    shapes = {found.full_name: Shape() for found in _reachable(descriptor)}
    for found in _reachable(descriptor):
        shapes[found.full_name].parts.extend(_parts(found, shapes))
    # Each round raises those that contain themselves by one at least: they end up above all that is allowed.
    for _ in range(MAX_DEPTH + 1):
        if not sum(shape.settle() for shape in shapes.values()):
            break
    return shapes


def _reachable(root: Descriptor) -> list[Descriptor]:
    found, waiting = {root.full_name: root}, [root]
    while waiting:
        for one in waiting.pop().fields:
            inner = one.message_type
            if inner is not None and inner.full_name not in found:
                found[inner.full_name] = inner
                waiting.append(inner)
    return list(found.values())


def _parts(descriptor: Descriptor, shapes: dict[str, Shape]) -> Iterator[_Part]:
    loose, repeated = _is_loose(descriptor.file), _repeated(descriptor)
    for one in descriptor.fields:
        inner = one.message_type
        if inner is None:
            if loose and one.type == FieldDescriptor.TYPE_STRING:
                look = _look_at_texts if one.name in repeated else _look_at_text
                yield _Part(one.name, look, _LOOSE, 0)
        elif inner.GetOptions().map_entry:
            yield from _map_parts(one.name, inner, shapes, loose=loose)
        else:
            yield _Part(
                one.name, _look_at_all if one.name in repeated else _look_at_one, shapes[inner.full_name], 1
            )


def _map_parts(name: str, entry: Descriptor, shapes: dict[str, Shape], *, loose: bool) -> Iterator[_Part]:
    key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
    if value.message_type is None:
        yield _Part(name, _look_at_entries, _LEAF, 1)
    else:
        yield _Part(name, _look_at_messages, shapes[value.message_type.full_name], 2)
    if loose and key.type == FieldDescriptor.TYPE_STRING:
        yield _Part(name, _look_at_texts, _LOOSE, 0)
    if loose and value.type == FieldDescriptor.TYPE_STRING:
        yield _Part(name, _look_at_values, _LOOSE, 0)


def _repeated(descriptor: Descriptor) -> set[str]:
    proto = DescriptorProto()
    descriptor.CopyToProto(proto)
    return {one.name for one in proto.field if one.label == FieldDescriptorProto.LABEL_REPEATED}


def _is_loose(file: FileDescriptor) -> bool:
    return FileDescriptorProto.FromString(file.serialized_pb).syntax in {"", "proto2"}


def _look_at_one(message: Any, part: _Part, room: int, left: _Left) -> None:
    if type(message).HasField(message, part.name):
        _look_inside((getattr(message, part.name),), part.inside, room, left)


def _look_at_all(message: Any, part: _Part, room: int, left: _Left) -> None:
    _look_inside(getattr(message, part.name), part.inside, room, left)


def _look_at_entries(message: Any, part: _Part, room: int, _: _Left) -> None:
    if room < 0 and getattr(message, part.name):
        raise TooDeepError


def _look_at_messages(message: Any, part: _Part, room: int, left: _Left) -> None:
    _look_inside(getattr(message, part.name).values(), part.inside, room, left)


def _look_inside(messages: Iterable[Any], shape: Shape, room: int, left: _Left) -> None:
    for message in messages:
        if room < 0:
            raise TooDeepError
        left.spend()
        if shape.loose or (shape.height > room and type(message).ByteSize(message) >= LEVEL * (room + 1)):
            shape.look_within(message, room, left)


def _look_at_text(message: Any, part: _Part, _: int, __: _Left) -> None:
    _judge((getattr(message, part.name),), part.name)


def _look_at_texts(message: Any, part: _Part, _: int, __: _Left) -> None:
    _judge(getattr(message, part.name), part.name)


def _look_at_values(message: Any, part: _Part, _: int, __: _Left) -> None:
    _judge(getattr(message, part.name).values(), part.name)


def _judge(texts: Iterable[object], name: str) -> None:
    # What is not UTF-8 is given as bytes, or not at all.
    try:
        if all(isinstance(text, str) for text in texts):
            return
    except UnicodeDecodeError:
        pass
    raise NotTextError(name)
