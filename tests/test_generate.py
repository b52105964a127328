"""Generated stubs: what a user's protos become, and how each mistake is told."""

import subprocess
import sys
from pathlib import Path

import pytest

from mesh import generate as subject
from mesh.generate import GenerateError, generate

ITEM = 'syntax = "proto3"; package shop.v1; message Item { string id = 1; }'
OTHER = ITEM.replace("Item", "Other")
SHOP = """
syntax = "proto3";
package shop.v1;
import "google/protobuf/timestamp.proto";
import "shop/v1/item.proto";
service ShopService { rpc Buy(Item) returns (google.protobuf.Timestamp); }
"""
USE = "import {0}_pb2_grpc, {0}_pb2; print({0}_pb2.DESCRIPTOR.package, *vars({0}_pb2_grpc))"


def proto(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def imported(out: Path, code: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, cwd=out, check=True, capture_output=True, text=True).stdout


def test_stubs_import_without_a_warning(tmp_path: Path) -> None:
    """One file, no include: it lands in ``out`` itself, messages and stubs, each with its types."""
    written = generate([proto(tmp_path / "in", "item.proto", ITEM)], tmp_path / "out")
    assert {path.name for path in written} >= {"item_pb2.py", "item_pb2.pyi", "item_pb2_grpc.py"}
    assert "shop.v1" in imported(tmp_path / "out", USE.format("item"))


def test_imports_are_relative_to_the_includes(tmp_path: Path) -> None:
    """With an include, packages follow the directories; Google's well-known types are found unasked."""
    files = [
        proto(tmp_path, f"shop/v1/{name}.proto", text) for name, text in (("item", ITEM), ("shop", SHOP))
    ]
    out = tmp_path / "out"
    written = generate(files, out, [tmp_path])
    assert out / "shop/v1/shop_pb2_grpc.pyi" in written
    assert written == sorted(path for path in out.rglob("*") if path.is_file())
    assert "ShopServiceStub" in imported(out, "from shop.v1 import shop_pb2_grpc as m; print(*vars(m))")


def test_the_default_include_is_the_common_parent(tmp_path: Path) -> None:
    """Files of several directories keep their places below the closest directory that holds all."""
    files = [proto(tmp_path, "a/item.proto", ITEM), proto(tmp_path, "b/c/other.proto", OTHER)]
    generate(files, tmp_path / "out")
    assert (tmp_path / "out/a/item_pb2.py").exists()
    assert (tmp_path / "out/b/c/other_pb2.py").exists()


def test_stubs_are_typed_for_aio(tmp_path: Path) -> None:
    """A stub may be made from an aio channel, and a servicer is abstract, to a type checker."""
    files = [proto(tmp_path, "shop/v1/item.proto", ITEM), proto(tmp_path, "shop/v1/shop.proto", SHOP)]
    generate(files, tmp_path / "out", [tmp_path])
    types = (tmp_path / "out/shop/v1/shop_pb2_grpc.pyi").read_text()
    assert "aio.Channel" in types
    assert "class ShopServiceServicer" in types


def test_nothing_to_generate_is_said(tmp_path: Path) -> None:
    """No files at all is a mistake, not an empty success."""
    with pytest.raises(GenerateError, match=r"name at least one \.proto file"):
        generate([], tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A path that is no file is told before anything runs."""
    with pytest.raises(GenerateError, match=r"no such proto file: .*absent\.proto"):
        generate([tmp_path / "absent.proto"], tmp_path)


def test_a_missing_include_is_named(tmp_path: Path) -> None:
    """protoc only warns of a missing include; here it is an error."""
    with pytest.raises(GenerateError, match=r"no such include directory: .*absent"):
        generate([proto(tmp_path, "item.proto", ITEM)], tmp_path, [tmp_path / "absent"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("message {", r"item\.proto:1:"),
        ('syntax = "proto3"; import "absent.proto";', r"absent\.proto"),
        (ITEM + " message Other { Absent x = 1; }", r"Absent"),
    ],
)
def test_an_error_of_protoc_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    """protoc's own line is passed on, and ``out`` is not touched."""
    with pytest.raises(GenerateError, match=reason) as caught:
        generate([proto(tmp_path / "in", "item.proto", text)], tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_file_outside_the_includes_is_an_error(tmp_path: Path) -> None:
    """protoc names the file that no include holds."""
    (tmp_path / "other").mkdir()
    with pytest.raises(GenerateError, match=r"item\.proto"):
        generate([proto(tmp_path / "in", "item.proto", ITEM)], tmp_path / "out", [tmp_path / "other"])


def test_an_unwritable_out_is_an_error(tmp_path: Path) -> None:
    """``out`` may be in the way as a file."""
    with pytest.raises(GenerateError, match="cannot write"):
        generate([proto(tmp_path / "in", "item.proto", ITEM)], proto(tmp_path, "out", ""))


def test_a_missing_generator_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the message is the command that installs it."""
    monkeypatch.setattr(subject, "find_spec", lambda _: None)
    with pytest.raises(GenerateError, match=r"pip install 'sealmesh\[generate\]'"):
        generate([proto(tmp_path, "item.proto", ITEM)], tmp_path / "out")
