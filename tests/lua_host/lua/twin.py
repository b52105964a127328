"""The test's protos, and what Python's protobuf makes of them: the twin that the codec is held against."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from grpc_tools import protoc  # type: ignore[import-untyped]
from hypothesis import strategies as st

from tests.lua_host.lua.bridge import CodecError, Lua, Schema, exact, is_repeated, is_required

PROTOS = Path(__file__).parent / "protos"
#: The least and the most that a field of integers holds.
INTEGERS: dict[int, tuple[int, int]] = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SFIXED32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SINT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1),
}
NUMBER_ZERO = "a field has a number that is not from 1 to 536870911"
OTHERS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_STRING: st.text(max_size=8)
    | st.sampled_from(["a" * 127, "é" * 64, "\U0010ffff", "\0"]),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=8) | st.just(b"\xff" * 200),
}
_CLOSE = 3


class NotExactError(Exception):
    """Python reads it, the codec does not: proto2 without what it requires, or with text that is no UTF-8."""


def compiled(*names: str, root: Path = PROTOS) -> bytes:
    """Compile protos to a FileDescriptorSet with all that they import."""
    with TemporaryDirectory() as directory:
        out = Path(directory) / "set.binpb"
        known = files("grpc_tools") / "_proto"
        flags = [f"-I{root}", f"-I{known}", "--include_imports", f"--descriptor_set_out={out}"]
        assert protoc.main(["protoc", *flags, *names]) == 0
        return out.read_bytes()


@cache
def descriptors() -> bytes:
    """Give the FileDescriptorSet of the test's protos."""
    return compiled("modern.proto", "legacy.proto")


@cache
def lua() -> Lua:
    """Give the Lua state that tests share."""
    return Lua()


@cache
def schema() -> Schema:
    """Give the codec's schema of the test's protos."""
    return lua().schema(descriptors())


@cache
def classes() -> dict[str, type[Message]]:
    """Give Python's classes of the test's messages, by full name."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors()).file:
        pool.Add(file)
    names = [name for file in ("modern.proto", "legacy.proto") for name in _names(pool.FindFileByName(file))]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names}


def _names(file: Any) -> list[str]:
    return [message.full_name for message in file.message_types_by_name.values()]


def is_map(field: Any) -> bool:
    """Whether a field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def has_presence(field: Any) -> bool:
    """Whether absent and default are two things."""
    return not is_repeated(field) and field.has_presence


def seen(message: Message) -> dict[str, Any]:
    """Give what the codec should see in a message of Python's; raise ``NotExactError``."""
    if not message.IsInitialized():
        raise NotExactError
    there = {}
    for field in message.DESCRIPTOR.fields:
        if not has_presence(field) or message.HasField(field.name):
            there[field.name] = _seen_field(field, getattr(message, field.name))
    return there


def _seen_field(field: Any, value: Any) -> Any:
    if is_map(field):
        element = field.message_type.fields_by_name["value"]
        try:
            return {key: _seen_value(element, value[key]) for key in value}
        except UnicodeDecodeError:
            raise NotExactError from None
    if is_repeated(field):
        return [_seen_value(field, element) for element in value]
    return _seen_value(field, value)


def _seen_value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return seen(value)
    if field.type == FieldDescriptor.TYPE_STRING and isinstance(value, bytes):
        raise NotExactError
    if field.type == FieldDescriptor.TYPE_ENUM:
        names = (known.name for known in field.enum_type.values if known.number == value)
        return next(names, value)
    return value


def parsed(name: str, data: bytes) -> dict[str, Any] | None:
    """Give what the codec should see in bytes; None if it should refuse them."""
    try:
        return seen(classes()[name].FromString(data))
    except (DecodeError, NotExactError):
        return None


def compare(name: str, data: bytes, *, stricter: bool = False) -> None:
    """Assert that the codec takes what Python takes and sees the same; ``stricter``: or says why not."""
    expected = parsed(name, data)
    decoded, error = None, ""
    try:
        decoded = schema().decode(classes()[name].DESCRIPTOR, data)
    except CodecError as refusal:
        error = str(refusal)
    if not (stricter and decoded is None and _is_stricter(name, error)):
        assert exact(decoded) == exact(expected), error


def _is_stricter(name: str, error: str) -> bool:
    # Python looks at the numbers of fields only outside of unknown groups, and at proto2's strings not at
    # all: nor can those be looked at here that another member of a oneof has replaced.
    return NUMBER_ZERO in error or (name.startswith("codec.old") and "has to be UTF-8" in error)


# Random messages --------------------------------------------------------------------------------------------


def values(field: Any, depth: int) -> st.SearchStrategy[Any]:
    """Give values for a field's type, its edges among them."""
    if field.message_type is not None:
        return messages(field.message_type.full_name, depth - 1, field.message_type)
    if field.enum_type is not None:
        known = st.sampled_from([value.number for value in field.enum_type.values])
        return known if field.enum_type.is_closed else st.one_of(known, st.integers(-(2**31), 2**31 - 1))
    if field.type in INTEGERS:
        low, high = INTEGERS[field.type]
        edges = [low, low + 1, 0, 1, 127, 128, 2**14 - 1, 2**14, 2**21, 2**28, 2**31 - 1, high - 1, high]
        return st.one_of(st.sampled_from([edge for edge in edges if edge <= high]), st.integers(low, high))
    return OTHERS[field.type]


@st.composite
def messages(draw: st.DrawFn, name: str, depth: int = _CLOSE, descriptor: Any = None) -> dict[str, Any]:
    """Give random messages of a type, nested up to a depth, as keyword arguments of its class."""
    descriptor = descriptor or classes()[name].DESCRIPTOR
    usable = [field for field in descriptor.fields if depth > 1 or field.message_type is None]
    chosen = (
        draw(st.lists(st.sampled_from(usable), max_size=6, unique_by=lambda field: field.name))
        if usable
        else []
    )
    taken: set[str] = set()
    message: dict[str, Any] = {}
    for field in [*chosen, *(field for field in usable if is_required(field))]:
        oneof = field.containing_oneof
        if oneof is None or oneof.name not in taken:
            taken.add(oneof.name if oneof else "")
            message[field.name] = draw(_contents(field, depth))
    return message


def _contents(field: Any, depth: int) -> st.SearchStrategy[Any]:
    if is_map(field):
        key, element = field.message_type.fields
        return st.dictionaries(values(key, depth), values(element, depth), max_size=3)
    one = values(field, depth)
    return st.lists(one, max_size=4) if is_repeated(field) else one


def built(name: str, message: dict[str, Any]) -> Message:
    """Make a message of Python's."""
    made = classes()[name]()
    fill(made, message)
    return made


def fill(message: Message, contents: dict[str, Any]) -> None:
    """Set the fields of a message of Python's."""
    for name, value in contents.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        if is_map(field):
            _fill_map(getattr(message, name), field.message_type, value)
        elif is_repeated(field) and field.message_type is not None:
            for element in value:
                fill(getattr(message, name).add(), element)
        elif is_repeated(field):
            getattr(message, name).extend(value)
        elif field.message_type is not None:
            getattr(message, name).SetInParent()
            fill(getattr(message, name), value)
        else:
            setattr(message, name, value)


def _fill_map(there: Any, entry: Any, contents: dict[Any, Any]) -> None:
    for key, value in contents.items():
        if entry.fields_by_name["value"].message_type is not None:
            fill(there[key], value)
        else:
            there[key] = value
