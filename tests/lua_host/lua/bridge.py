"""Lua's codec in this process, and values of Python for its tables and back.

A message is a dict by field name, a repeated field a list, a map a dict, an enum's value its name or number.
The way back follows the descriptor, so that what came is what was meant and not what happens to look alike.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from lupa import lua54

SOURCES = Path(__file__).parents[3] / "services" / "lua_host" / "lua"
MAX_INT64 = 2**63 - 1

#: Gives the codec, of modules that load each other as main.lua has them do.
_LOAD = b"""
local sources = {...}
local parts = setmetatable({}, {__index = function(parts, name)
  for index = 1, #sources, 2 do
    if sources[index] == name then
      parts[name] = assert(load(sources[index + 1], "=mesh/" .. name .. ".lua", "t"))(parts)
    end
  end
  return rawget(parts, name)
end})
return parts.codec
"""
_LOAD_SCHEMA = b"function(codec, bytes, max_depth) return codec.load(bytes, {max_depth = max_depth}) end"
# Holds what it needs, so that it works in a state whose globals are gone.
_TRY = b"""(function(pcall, type)
  return function(run, ...)
    local ok, value = pcall(run, ...)
    return ok, type(value), value
  end
end)(pcall, type)"""


def is_repeated(field: Any) -> bool:
    """Whether a field is a list or a map."""
    # Newer releases of protobuf have a name for it, and warn of the label; older ones have the label alone.
    named = getattr(field, "is_repeated", None)
    return bool(field.label == FieldDescriptor.LABEL_REPEATED if named is None else named)


def is_required(field: Any) -> bool:
    """Whether a field has to be there."""
    named = getattr(field, "is_required", None)
    return bool(field.label == FieldDescriptor.LABEL_REQUIRED if named is None else named)


class CodecError(Exception):
    """An error that the codec raised; ``str`` is its text."""


class Lua:
    """A Lua state with the codec loaded."""

    def __init__(self, max_memory: int | None = None) -> None:
        """Load the codec, under a limit of memory if there is one."""
        self.state = lua54.LuaRuntime(encoding=None, register_eval=False, max_memory=max_memory)
        self.attempt = self.eval(_TRY)
        self._load_schema = self.eval(_LOAD_SCHEMA)
        self._tostring = self.eval(b"tostring")
        files = sorted(SOURCES.glob("codec*.lua"))
        self.codec = self.state.execute(
            _LOAD, *(part for file in files for part in (file.stem.encode(), file.read_bytes()))
        )

    def eval(self, text: bytes) -> Any:
        """Give the value of an expression in Lua."""
        return self.state.eval(text)

    def call(self, function: Any, *arguments: Any) -> Any:
        """Call a function of Lua; raise ``CodecError`` if it raises, which has to be with a string."""
        ok, kind, value = self.attempt(function, *arguments)
        if ok:
            return value
        assert kind == b"string", kind
        raise CodecError(value.decode("ascii"))

    def schema(self, descriptors: bytes, max_depth: int = 101) -> Schema:
        """Load a FileDescriptorSet. 101 levels are what Python's protobuf reads."""
        return Schema(self, self.call(self._load_schema, self.codec, descriptors, max_depth))

    def to_lua(self, value: Any) -> Any:
        """Give Lua's value for one of Python."""
        match value:
            case bool() | bytes() | float() | None:
                return value
            case int():
                return value if value <= MAX_INT64 else self.codec[b"uint64"](str(value).encode())
            case str():
                return value.encode()
            case list():
                return self._table(enumerate(value, 1))
            case dict():
                return self._table(value.items())
        return value

    def _table(self, items: Any) -> Any:
        table = self.state.table()
        for key, value in items:
            table[self.to_lua(key)] = self.to_lua(value)
        return table

    def to_python(self, descriptor: Any, table: Any) -> dict[str, Any]:
        """Give a message of Python for a decoded one."""
        return {
            name.decode(): self._field(descriptor.fields_by_name[name.decode()], value)
            for name, value in table.items()
        }

    def _field(self, field: Any, value: Any) -> Any:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, element = field.message_type.fields
            return {self._value(key, of): self._value(element, to) for of, to in value.items()}
        if is_repeated(field):
            return [self._value(field, value[index]) for index in _places(value)]
        return self._value(field, value)

    def _value(self, field: Any, value: Any) -> Any:
        if field.message_type is not None:
            return self.to_python(field.message_type, value)
        if self.codec[b"is_uint64"](value):
            return int(self._tostring(value))
        if field.type in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_ENUM}:
            return value.decode() if isinstance(value, bytes) else value
        return value


class Schema:
    """A schema of the codec's."""

    def __init__(self, lua: Lua, schema: Any) -> None:
        """Take what ``codec.load`` gave."""
        self._lua = lua
        self.messages, self.services = schema[b"messages"], schema[b"services"]

    def encode(self, name: str, message: Any) -> bytes:
        """Encode a message of Python; raise ``CodecError``."""
        return self.encode_table(name, self._lua.to_lua(message))

    def encode_table(self, name: str, table: Any) -> bytes:
        """Encode a table of Lua; raise ``CodecError``."""
        encoded = self._lua.call(self.messages[name.encode()][b"encode"], table)
        assert isinstance(encoded, bytes)
        return encoded

    def decode_table(self, name: str, data: bytes) -> Any:
        """Decode to a table of Lua; raise ``CodecError``."""
        return self._lua.call(self.messages[name.encode()][b"decode"], data)

    def decode(self, descriptor: Any, data: bytes) -> dict[str, Any]:
        """Decode to a message of Python; raise ``CodecError``."""
        return self._lua.to_python(descriptor, self.decode_table(descriptor.full_name, data))


def _places(table: Any) -> range:
    assert set(table.keys()) == set(range(1, len(table) + 1))
    return range(1, len(table) + 1)


def exact(value: Any) -> Any:
    """Give what is equal only if the values are the same: by type, and to the bit for floats but NaN."""
    match value:
        case dict():
            return {exact(key): exact(element) for key, element in value.items()}
        case list():
            return [exact(element) for element in value]
        case float():
            return ("float", "nan" if value != value else struct.pack("<d", value))  # noqa: PLR0124
    return (type(value).__name__, value)
