"""The codec against Python's protobuf: random messages, and random bytes."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lua_host.lua.bridge import exact
from tests.lua_host.lua.twin import built, classes, compare, messages, schema, seen
from tests.lua_host.lua.wire import garbage

NAMES = sorted(classes())

any_name = st.sampled_from(NAMES)
typed = any_name.flatmap(lambda name: st.tuples(st.just(name), messages(name)))


@settings(max_examples=400, deadline=None)
@given(typed)
def test_what_python_writes_is_read_the_same(case: tuple[str, dict[str, Any]]) -> None:
    """Field by field, with types and bits."""
    name, contents = case
    message = built(name, contents)
    decoded = schema().decode(message.DESCRIPTOR, message.SerializeToString())
    assert exact(decoded) == exact(seen(message))


@settings(max_examples=400, deadline=None)
@given(typed)
def test_what_is_written_python_reads_the_same(case: tuple[str, dict[str, Any]]) -> None:
    """And it is as long as what Python writes."""
    name, contents = case
    message = built(name, contents)
    encoded = schema().encode(name, seen(message))
    assert exact(seen(classes()[name].FromString(encoded))) == exact(seen(message))
    assert len(encoded) == message.ByteSize()


MAPLESS = [
    f"codec.test.{name}" for name in ("Scalars", "Optionals", "Lists", "Unpacked", "Choice", "Nothing")
]
MAPLESS += [f"codec.old.{name}" for name in ("Optionals", "Lists", "Packed", "Choice", "Holder", "Needy")]
mapless = st.sampled_from(MAPLESS).flatmap(lambda name: st.tuples(st.just(name), messages(name)))


@settings(max_examples=300, deadline=None)
@given(mapless)
def test_without_maps_the_bytes_are_pythons(case: tuple[str, dict[str, Any]]) -> None:
    """In the order of the fields' numbers, packed where the proto says so."""
    name, contents = case
    message = built(name, contents)
    assert schema().encode(name, seen(message)) == message.SerializeToString()


@settings(max_examples=800, deadline=None)
@given(st.data(), any_name)
def test_garbage_is_read_as_python_reads_it_or_not_at_all(data: st.DataObject, name: str) -> None:
    """The codec takes what the twin takes, and sees the same; anything else is an error in words."""
    compare(name, data.draw(garbage(name)), stricter=True)
