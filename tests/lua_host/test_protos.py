"""Protos of a service: found, compiled, and refused with file and line for what is not supported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.names import FullMethod
from services.lua_host import proto_files
from services.lua_host.manifest import Manifest
from services.lua_host.problems import ProblemsError
from services.lua_host.protos import Protos

ITEM = 'syntax = "proto3"; package shop.v1; message Item { string id = 1; }'
SHOP = """\
syntax = "proto3";
package shop.v1;
import "google/protobuf/timestamp.proto";
import "item.proto";
// Sells.
service Shop {
  rpc Buy(Item) returns (google.protobuf.Timestamp);
  rpc Watch(Item) returns (stream Item);
  rpc Fill(stream Item) returns (Item);
}
"""


def manifest(protos: Sequence[str], includes: Sequence[str] = (".",)) -> Manifest:
    lists = [f"[{', '.join(repr(name) for name in names)}]" for names in (protos, includes)]
    text = "name = 'a'\nscript = 'a.lua'\nprotos = {}\nincludes = {}\nserves = ['shop.v1.Shop']\n"
    return Manifest.parse(text.format(*lists).encode())


def write(directory: Path, **files: str | bytes) -> None:
    """Write files; ``__`` in a name is a slash, and those without an ending are protos."""
    for name, content in files.items():
        path = directory / f"{name.replace('__', '/')}.proto"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def compiled(directory: Path, name: str, *options: str) -> bytes:
    """Give the descriptors of a proto, as protoc writes them."""
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{directory}",
        *options,
        "--descriptor_set_out=out.binpb",
    ]
    subprocess.run([*command, name], cwd=directory, check=True)
    return (directory / "out.binpb").read_bytes()


def load(directory: Path, *protos: str, includes: Sequence[Path] = (), own: Sequence[str] = (".",)) -> Protos:
    return Protos.load(directory, manifest(protos, own), includes)


def refused(
    directory: Path, *protos: str, includes: Sequence[Path] = (), own: Sequence[str] = (".",)
) -> list[str]:
    with pytest.raises(ProblemsError) as raised:
        load(directory, *protos, includes=includes, own=own)
    said = [str(problem) for problem in raised.value.problems]
    assert all("\n" not in line for line in said)
    return said


def test_methods_have_their_types_and_places(tmp_path: Path) -> None:
    """Imports are found beside the file, and Google's own types without asking."""
    write(tmp_path, shop=SHOP, item=ITEM)
    protos = load(tmp_path, "shop.proto")
    assert protos.services == {"shop.v1.Shop"}
    buy, watch, fill = (protos.methods[f"/shop.v1.Shop/{name}"] for name in ("Buy", "Watch", "Fill"))
    assert (buy.name, buy.service) == (FullMethod("/shop.v1.Shop/Buy"), "shop.v1.Shop")
    assert (buy.input.full_name, buy.output.full_name) == ("shop.v1.Item", "google.protobuf.Timestamp")
    assert [(rpc.client_streaming, rpc.server_streaming) for rpc in (buy, watch, fill)] == [
        (False, False),
        (False, True),
        (True, False),
    ]
    assert [(rpc.file, rpc.line) for rpc in (buy, watch, fill)] == [
        ("shop.proto", line) for line in (7, 8, 9)
    ]


def test_a_worker_gets_all_files_and_no_comments(tmp_path: Path) -> None:
    """Each file after those that it imports."""
    write(tmp_path, shop=SHOP, item=ITEM)
    raw = load(tmp_path, "shop.proto").raw
    files = FileDescriptorSet.FromString(raw).file
    assert [file.name for file in files] == ["google/protobuf/timestamp.proto", "item.proto", "shop.proto"]
    assert b"Sells" not in raw
    assert not any(file.HasField("source_code_info") for file in files)


def test_two_services_may_mean_different_things_by_one_name(tmp_path: Path) -> None:
    """Each has a pool of its own."""
    for name, field in (("one", "int64"), ("two", "bytes")):
        write(tmp_path / name, item=ITEM.replace("string", field))
    one, two = (load(tmp_path / name, "item.proto").message("shop.v1.Item") for name in ("one", "two"))
    number, text = one.DESCRIPTOR.fields_by_name["id"].type, two.DESCRIPTOR.fields_by_name["id"].type
    assert number != text
    assert one is not two


def test_includes_are_roots_of_imports(tmp_path: Path) -> None:
    """Those of the manifest lie in the directory; those of the operator anywhere."""
    shop = SHOP.replace('"item.proto"', '"shop/item.proto"')
    write(tmp_path / "own", protos__shop__shop=shop, protos__shop__item=ITEM)
    assert load(tmp_path / "own", "protos/shop/shop.proto", own=["protos"]).methods
    write(tmp_path / "elsewhere", shop__shop=shop, shop__item=ITEM)
    (tmp_path / "bare").mkdir()
    protos = load(tmp_path / "bare", "shop/shop.proto", includes=[tmp_path / "elsewhere"])
    assert protos.methods["/shop.v1.Shop/Buy"].file == str(tmp_path / "elsewhere/shop/shop.proto")


def test_a_place_outside_of_the_directory_is_told_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be misread as one inside, where -I is given relative to where the operator stands."""
    write(tmp_path / "elsewhere", bad='syntax = "proto3";\nmessage A { B b = 1; }')
    (tmp_path / "own").mkdir()
    monkeypatch.chdir(tmp_path)
    (said,) = refused(Path("own"), "bad.proto", includes=[Path("elsewhere")])
    assert said.startswith(f"{tmp_path}/elsewhere/bad.proto:2: ")


def test_a_compiled_set_is_as_good(tmp_path: Path) -> None:
    """Made with or without positions, alone or beside a proto that holds the same."""
    write(tmp_path, shop=SHOP, item=ITEM)
    for name, options in (("bare", []), ("full", ["--include_source_info"])):
        (tmp_path / f"{name}.binpb").write_bytes(
            compiled(tmp_path, "shop.proto", "--include_imports", *options)
        )
    assert load(tmp_path, "bare.binpb").methods["/shop.v1.Shop/Watch"].line == 0
    assert load(tmp_path, "full.binpb").methods["/shop.v1.Shop/Watch"].line == 8
    assert load(tmp_path, "bare.binpb", "shop.proto").raw == load(tmp_path, "bare.binpb").raw


def test_a_set_that_lacks_imports_is_refused(tmp_path: Path) -> None:
    """With what to do about it."""
    write(tmp_path, shop=SHOP, item=ITEM)
    (tmp_path / "part.binpb").write_bytes(compiled(tmp_path, "shop.proto"))
    (said,) = refused(tmp_path, "part.binpb")
    assert said.startswith("shop.proto: cannot be used, is an import missing? ")


def test_two_meanings_of_one_file_are_refused(tmp_path: Path) -> None:
    """Nobody could say which of the two holds."""
    write(tmp_path, item=ITEM)
    (tmp_path / "old.binpb").write_bytes(compiled(tmp_path, "item.proto"))
    write(tmp_path, item=ITEM.replace("string", "bytes"))
    assert refused(tmp_path, "old.binpb", "item.proto") == [
        "service.toml:3: item.proto is there twice, and not the same: remove one"
    ]


BAD: dict[str, tuple[str | bytes, str]] = {
    "editions": ('edition = "2023";\npackage shop.v1;', "bad.proto:1: editions are not supported"),
    "group": (
        'syntax = "proto2";\nmessage A {\n  message B {\n    optional group C = 1 { }\n  }\n}',
        "bad.proto:4: B.c is a group, and groups are not supported: use a message",
    ),
    "extension": (
        'syntax = "proto2";\nmessage A { extensions 5 to 9; }\nextend A {\n  optional int32 b = 5;\n}',
        "bad.proto:4: extensions are not supported: b of A",
    ),
    "inner extension": (
        'syntax = "proto2";\nmessage A { extensions 5; }\nmessage B {\nextend A { optional int32 c = 5; }\n}',
        "bad.proto:4: extensions are not supported: c of A",
    ),
    "message set": (
        'syntax = "proto2";\nmessage A {\n option message_set_wire_format = true;\n extensions 4 to max;\n}',
        "bad.proto:2: A has the wire format of message sets, which is not supported",
    ),
    "long name": (
        f'syntax = "proto3";\nmessage A {{}}\nservice S {{\n  rpc {"M" * 600}(A) returns (A);\n}}',
        "bad.proto:4: bad method '/S/MMM",
    ),
    "syntax": ('syntax = "proto3";\nmessage A {\n  string = 1;\n}', "bad.proto:3: expected field name"),
    "type": ('syntax = "proto3";\nmessage A { Nothing b = 1; }', 'bad.proto:2: "Nothing" is not defined'),
    "import": ('syntax = "proto3";\nimport "none.proto";', "none.proto: file not found"),
    "bytes": (b'syntax = "proto3";\nmessage \xff {}', "bad.proto:2: "),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_used_is_told_with_its_line(tmp_path: Path, kind: str) -> None:
    """As protoc tells it, or as the codec would."""
    text, said = BAD[kind]
    write(tmp_path, bad=text)
    assert any(line.startswith(said) for line in refused(tmp_path, "bad.proto"))


def test_all_that_is_wrong_is_told(tmp_path: Path) -> None:
    """Of a file, and of the names of files."""
    write(tmp_path, one='syntax = "proto3";\nmessage A { B b = 1; }\nmessage C { D d = 1; }')
    said = refused(tmp_path, "one.proto")
    assert [line.partition(": ")[0] for line in said] == ["one.proto:2", "one.proto:3"]
    assert len(refused(tmp_path, "none.proto", "nothing.binpb")) == 2


def test_options_may_be_extended(tmp_path: Path) -> None:
    """They are for others, and are not handed on."""
    text = """\
syntax = "proto3";
import "google/protobuf/descriptor.proto";
extend google.protobuf.FieldOptions { string hint = 50001; }
message A { string b = 1 [(hint) = "secret hint"]; }
"""
    write(tmp_path, a=text)
    protos = load(tmp_path, "a.proto")
    assert b"secret hint" not in protos.raw
    assert protos.message("A")(b="x").SerializeToString() == b"\n\x01x"


def test_nothing_outside_of_the_directory_is_read(tmp_path: Path) -> None:
    """Not by a name, not by a link, not by an import that is one."""
    write(tmp_path, secret=ITEM)
    own = tmp_path / "own"
    own.mkdir()
    (own / "item.proto").symlink_to(tmp_path / "secret.proto")
    leads = "service.toml:3: item.proto: leads out of the service's directory: put the file itself there"
    assert refused(own, "item.proto") == [leads]
    write(own, shop=SHOP)
    assert refused(own, "shop.proto") == [leads.replace(":3", ":3")]
    (own / "up").symlink_to(tmp_path)
    assert "leads out" in refused(own, "up/secret.proto", own=["up"])[0]


def test_a_directory_may_be_a_link_itself(tmp_path: Path) -> None:
    """What counts is what is inside of it; links inside of it to its own files are fine."""
    write(tmp_path / "real", shop=SHOP, original=ITEM)
    (tmp_path / "real/item.proto").symlink_to("original.proto")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert load(tmp_path / "link", "shop.proto").methods


def test_a_missing_file_is_told_with_its_entry(tmp_path: Path) -> None:
    """And where else it may be."""
    said = "service.toml:3: a.proto: no such file: put it into the service's directory"
    assert refused(tmp_path, "a.proto") == [f"{said}, or say with -I where it is"]
    assert refused(tmp_path, "a.proto", includes=[tmp_path]) == [said]


def test_protoc_has_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import that never ends, such as a pipe, does not hold up the operator for ever."""
    write(tmp_path, shop=SHOP)
    os.mkfifo(tmp_path / "item.proto")
    monkeypatch.setattr(proto_files, "PATIENCE", 0.5)
    assert refused(tmp_path, "shop.proto") == ["service.toml:3: protoc took longer than 0.5 s"]


def test_the_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is read, and of what a worker is given."""
    write(tmp_path, item=ITEM)
    monkeypatch.setattr(proto_files, "MAX_SET", 10)
    assert "bytes of descriptors are too many: 10 are the limit" in refused(tmp_path, "item.proto")[0]
    many = "\n".join(f"message Message{number:0500} {{}}" for number in range(2200))
    monkeypatch.undo()
    write(tmp_path, item=f'syntax = "proto3";\n{many}')
    assert "bytes of descriptors are too many: 1048576 are the limit" in refused(tmp_path, "item.proto")[0]


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("seed")
    write(directory, shop=SHOP, item=ITEM)
    return compiled(directory, "shop.proto", "--include_imports")


@given(st.data())
def test_a_damaged_set_is_a_set_or_none(
    tmp_path_factory: pytest.TempPathFactory, seed: bytes, data: st.DataObject
) -> None:
    """Whatever the bytes, there is no third way out."""
    directory = tmp_path_factory.getbasetemp()
    damaged = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(seed) - 1))] = data.draw(st.integers(0, 255))
    (directory / "damaged.binpb").write_bytes(damaged)
    try:
        protos = load(directory, "damaged.binpb")
    except ProblemsError as error:
        assert error.problems  # noqa: PT017  there may be none
    else:
        assert all(name == rpc.name.text for name, rpc in protos.methods.items())
