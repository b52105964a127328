"""Schemas: what is loaded, what is refused; and that neither a bare world nor a lack of memory breaks one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lua_host.lua.bridge import CodecError, Lua, Schema, exact
from tests.lua_host.lua.twin import built, classes, compiled, descriptors, lua, schema, seen

TREE = "codec.test.Tree"


def test_every_message_is_there_and_no_entry_of_a_map() -> None:
    """Nested and imported ones by their full names."""
    names = {name.decode() for name in schema().messages}
    assert set(classes()) < names
    assert {"codec.test.Tree.Branch", "codec.common.Point", "google.protobuf.Struct"} < names
    assert not [name for name in names if "Entry" in name]
    assert all(message[b"name"] == name for name, message in schema().messages.items())


def test_methods_know_their_messages_and_what_streams() -> None:
    """By the service's full name and the method's short one."""
    assert list(schema().services) == [b"codec.test.Walks"]
    methods = {
        name.decode(): _told(method) for name, method in schema().services[b"codec.test.Walks"].items()
    }
    tree, point = "codec.test.Tree", "codec.common.Point"
    assert methods == {
        "One": ("/codec.test.Walks/One", tree, tree, False, False),
        "Down": ("/codec.test.Walks/Down", tree, point, False, True),
        "Up": ("/codec.test.Walks/Up", point, tree, True, False),
        "Both": ("/codec.test.Walks/Both", tree, "google.protobuf.Empty", True, True),
    }


def _told(method: Any) -> tuple[str, str, str, bool, bool]:
    texts = (method[b"name"], method[b"input"][b"name"], method[b"output"][b"name"])
    name, takes, gives = (text.decode() for text in texts)
    return name, takes, gives, method[b"client_streaming"], method[b"server_streaming"]


def test_descriptors_load_and_are_messages_like_any() -> None:
    """Those of descriptor.proto itself, as services with options of their own bring them along."""
    file = descriptor_pb2.FileDescriptorProto()
    descriptor_pb2.DESCRIPTOR.CopyToProto(file)
    files = descriptor_pb2.FileDescriptorSet(file=[file])
    decoded = lua().schema(files.SerializeToString()).decode(files.DESCRIPTOR, files.SerializeToString())
    assert exact(decoded) == exact(seen(files))


# Refused ----------------------------------------------------------------------------------------------------

OPTIONS = """
syntax = "proto3";
import "google/protobuf/descriptor.proto";
extend google.protobuf.FieldOptions { string hint = 50000; }
message Thing { string name = 1 [(hint) = "x"]; }
"""
REFUSED = {
    "a group": (
        'syntax = "proto2"; message M { optional group G = 1 { optional int32 x = 2; } }',
        r"M\.g is a group",
    ),
    "a group in a oneof": ('syntax = "proto2"; message M { oneof o { group G = 1 {} } }', r"M\.g is a group"),
    "an extension": (
        'syntax = "proto2"; message M { extensions 1 to 9; } extend M { optional int32 x = 1; }',
        r'extensions are not supported: "x" of "\.M"',
    ),
    "an extension in a message": (
        'syntax = "proto2"; message M { extensions 1 to 9; extend M { optional int32 x = 1; } }',
        r'extensions are not supported: "x" of "\.M"',
    ),
    "an edition": ('edition = "2023"; message M { int32 x = 1; }', r'syntax "editions" is not supported'),
}


def from_text(directory: Path, text: str) -> bytes:
    (directory / "text.proto").write_text(text)
    return compiled("text.proto", root=directory)


@pytest.mark.parametrize(("text", "error"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_supported_is_refused_at_load(tmp_path: Path, text: str, error: str) -> None:
    """The error names the file and the field."""
    with pytest.raises(CodecError, match=rf"^text\.proto: {error}"):
        lua().schema(from_text(tmp_path, text))


def test_options_may_be_extended(tmp_path: Path) -> None:
    """That is how they are made, and nothing of them goes over the wire."""
    assert from_text(tmp_path, OPTIONS)
    assert lua().schema(from_text(tmp_path, OPTIONS)).encode("Thing", {"name": "x"}) == b"\n\1x"


def field(name: str, number: int, kind: Field.Type.ValueType = Field.TYPE_INT32, of: str = "") -> Field:
    return Field(name=name, number=number, type=kind, type_name=of, label=Field.LABEL_OPTIONAL)


def file_with(*fields: Field, nested: dict[str, Any] | None = None, **parts: Any) -> bytes:
    message = {"name": "M", "field": fields, "nested_type": [nested] if nested else []}
    file: Any = {"name": "f.proto", "syntax": "proto3", "message_type": [message], **parts}
    return descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()


NUMBER = r"f\.proto: M\.{} has a bad number, or is there twice"
NOWHERE = r'f\.proto: M\.x has a type that no file defines: "{}", is an import missing\?'
LOST = {"name": "S", "method": [{"name": "Do", "input_type": ".M", "output_type": ".N"}]}
BROKEN = {
    "a type that is missing": (
        file_with(field("x", 1, Field.TYPE_MESSAGE, ".other.N")),
        NOWHERE.format(r"\.other\.N"),
    ),
    "an enum that is a message": (
        file_with(field("x", 1, Field.TYPE_ENUM, ".M")),
        NOWHERE.format(r"\.M"),
    ),
    "a type that is none": (
        file_with(Field(name="x", number=1)),
        r"f\.proto: M\.x has a type that is not known",
    ),
    "a name twice": (file_with(field("x", 1), field("x", 2)), NUMBER.format("x")),
    "a number twice": (file_with(field("x", 1), field("y", 1)), NUMBER.format("y")),
    "the number 0": (file_with(field("x", 0)), NUMBER.format("x")),
    "a number too high": (file_with(field("x", 2**29)), NUMBER.format("x")),
    "a name that is code": (
        file_with(field('x"] = os.exit() --', 1)),
        r'f\.proto: M has a field with a bad name: "x\\x22\] = os\.exit\(\) --"',
    ),
    "a message twice": (
        file_with(enum_type=[{"name": "M", "value": [{"name": "A", "number": 0}]}]),
        r"f\.proto: M is defined twice",
    ),
    "an enum of nothing": (file_with(enum_type=[{"name": "E"}]), r'f\.proto: "E" has no values'),
    "a method of unknown messages": (
        file_with(service=[LOST]),
        r'f\.proto: /S/Do has a type that no file defines: "\.N"',
    ),
    "a message without a name": (file_with(nested={"name": ""}), r'f\.proto: "" is no name'),
    "an entry that is none": (
        file_with(nested={"name": "E", "options": {"map_entry": True}}),
        r"f\.proto: M\.E is no entry of a map",
    ),
    "a package that is none": (file_with(package="a b"), r'f\.proto: "a b" is no package'),
    "bytes that are no descriptors": (
        b"\xff",
        r"google\.protobuf\.FileDescriptorSet: the bytes end too early",
    ),
}


@pytest.mark.parametrize(("data", "error"), BROKEN.values(), ids=BROKEN)
def test_broken_descriptors_are_refused(data: bytes, error: str) -> None:
    """They come from files of strangers. Nothing in them is run, and nothing of them kept."""
    with pytest.raises(CodecError, match=f"^{error}"):
        lua().schema(data)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_bytes_for_descriptors_load_or_are_an_error(data: st.DataObject) -> None:
    """Whatever is changed in them."""
    changed = bytearray(descriptors())
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        loaded = lua().schema(bytes(changed))
    except CodecError:
        return
    assert isinstance(loaded, Schema)


@pytest.mark.parametrize("depth", [0, -1, 1.5, b"8", None])
def test_the_depth_is_an_integer_above_0(depth: Any) -> None:
    """A schema without a limit there is not."""
    with pytest.raises(CodecError, match="max_depth has to be an integer above 0"):
        lua().schema(descriptors(), depth)


# A bare world, and little memory ----------------------------------------------------------------------------

BARE = b"""function()
  local next, globals, strings = next, _G, getmetatable("")
  local names = {}
  for name in next, globals do names[#names + 1] = name end
  for _, name in ipairs(names) do globals[name] = nil end
  strings.__index, strings.__name = nil, nil
end"""
MESSAGE = {
    "name": "näme", "left": {"weight": -5}, "leaves": [{"name": "x" * 50}, {"named": {"k": {}}}],
    "branch": {"length": 2**64 - 1, "form": "FORM_BENT"},
}  # fmt: skip
BAD = [
    {"nme": ""},
    {"name": 1},
    {"name": b"\xff"},
    {"weight": 2.5},
    {"leaves": {"x": 1}},
    {"branch": {"length": -1}},
]


def test_globals_and_methods_of_strings_may_be_taken_away() -> None:
    """All that is needed later was taken at load. What was loaded works on, and so does loading."""
    own = Lua()
    used = own.schema(descriptors())
    own.eval(BARE)()
    for bare in (used, own.schema(descriptors())):
        data = bare.encode(TREE, MESSAGE)
        assert bare.encode_table(TREE, bare.decode_table(TREE, data)) == data
        for bad in BAD:
            with pytest.raises(
                CodecError, match=r"^(codec\.test\.Tree|name|weight|leaves|branch\.length): [hn]"
            ):
                bare.encode(TREE, bad)
        for end in range(1, len(data)):
            try:
                bare.decode_table(TREE, data[:end])
            except CodecError as error:
                assert "attempt to" not in str(error)  # noqa: PT017  an error of Lua's own, for something missing


ROUNDS = b"""function(tree, data, message)
  return function()
    local decoded = tree.decode(data)
    return tree.encode(decoded), tree.encode(message)
  end
end"""


def test_memory_may_run_out_anywhere() -> None:
    """Whatever was being done then, the next message is read and written as ever."""
    own = Lua(max_memory=64 << 20)
    tree = own.schema(descriptors()).messages[TREE.encode()]
    data = built(
        TREE, {"leaves": [{"name": "n" * 60, "branch": {"length": 2**64 - 1}}] * 40}
    ).SerializeToString()
    message = own.to_lua({"leaves": [{"named": {"k": {"weight": 1}}}] * 40})
    round_trip = own.eval(ROUNDS)(tree, data, message)
    expected = own.attempt(lambda: None) and round_trip()
    collect = own.eval(b"collectgarbage")
    outcomes = []
    for spare in range(0, 90_000, 311):
        collect()
        collect()
        own.state.set_max_memory(own.state.get_memory_used() + spare)
        ok, _, value = own.attempt(round_trip)
        own.state.set_max_memory(64 << 20)
        outcomes.append(ok)
        assert ok or value == b"not enough memory"
        assert round_trip() == expected
    assert set(outcomes) == {True, False}
