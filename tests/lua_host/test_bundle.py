"""A service's directory: its parts fit together, or every reason why they do not, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.lua_host.bundle import Bundle, BundleError

MANIFEST = """\
name = "pricing"
script = "pricing.lua"
protos = ["shop.proto"]
serves = ["shop.v1.Pricing"]
[calls]
inventory = [
  "/shop.v1.Inventory/Check",
  "/shop.v1.Inventory/Levels",
]
"""
PROTO = """\
syntax = "proto3";
package shop.v1;
message Item {}
service Pricing { rpc Price(Item) returns (Item); }
service Inventory {
  rpc Check(Item) returns (Item);
  rpc Levels(Item) returns (stream Item);
  rpc Restock(stream Item) returns (Item);
}
service Empty {}
"""
SCRIPT = 'mesh.handle("Price", function() return {} end)\n'


def write(
    directory: Path, manifest: str = MANIFEST, proto: str = PROTO, script: str | bytes | None = SCRIPT
) -> Path:
    """Write a service, without a script if that is ``None``."""
    directory.mkdir(exist_ok=True)
    (directory / "service.toml").write_text(manifest)
    (directory / "shop.proto").write_text(proto)
    if script is not None:
        (directory / "pricing.lua").write_bytes(script.encode() if isinstance(script, str) else script)
    return directory


def refused(directory: Path) -> list[str]:
    with pytest.raises(BundleError) as raised:
        Bundle.load(directory)
    return [str(problem) for problem in raised.value.problems]


def test_a_service_is_its_parts(tmp_path: Path) -> None:
    """The manifest, the script as it was written, and the protos."""
    bundle = Bundle.load(write(tmp_path))
    assert bundle.manifest.name.text == "pricing"
    assert bundle.script == SCRIPT.encode()
    assert set(bundle.protos.services) == {"shop.v1.Pricing", "shop.v1.Inventory", "shop.v1.Empty"}


def test_protos_may_be_elsewhere(tmp_path: Path) -> None:
    """Where the operator says."""
    directory = write(tmp_path / "own")
    (directory / "shop.proto").rename(tmp_path / "shop.proto")
    assert Bundle.load(directory, [tmp_path]).protos.methods


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("v1.Pricing", "v1.Prices", "service.toml:4: no service shop.v1.Prices in the protos: did you mean"),
        ('"shop.v1.Pricing"', '"shop.v1.Empty"', "service.toml:4: shop.v1.Empty has no methods"),
        (
            "y/Check",
            "y/Chek",
            "service.toml:7: no method /shop.v1.Inventory/Chek in the protos: did you mean",
        ),
        ("y/Levels", "y/Restock", "service.toml:8: /shop.v1.Inventory/Restock takes a stream of requests: a"),
        (
            "v1.Pricing",
            "v1.Inventory",
            "shop.proto:8: /shop.v1.Inventory/Restock takes a stream of requests: a",
        ),
    ],
)
def test_names_have_to_mean_something(tmp_path: Path, old: str, new: str, said: str) -> None:
    """What is served and called is in the protos, and is something that a script can do."""
    (told,) = refused(write(tmp_path, MANIFEST.replace(old, new)))
    assert told.startswith(said)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "pricing.lua: no such file"),
        (b"\x1bLua\x54\x00", "pricing.lua: bytecode: a script has to be text"),
        (b"\xef\xbb\xbfreturn", "pricing.lua:1: starts with a byte order mark: save it without"),
        (b"--\n--\xff\n", "pricing.lua:2: not UTF-8: save it as UTF-8, and write other bytes as \\xXX"),
        (b"-" * (1024 * 1024 + 1), "pricing.lua: larger than 1048576 bytes"),
    ],
)
def test_a_script_is_text(tmp_path: Path, script: bytes | None, said: str) -> None:
    """Of a bounded size. What the text says is for a worker to judge."""
    assert refused(write(tmp_path, script=script)) == [said]


@pytest.mark.parametrize("name", ["service.toml", "pricing.lua"])
def test_no_file_leads_out_of_the_directory(tmp_path: Path, name: str) -> None:
    """Not even one that would be good there."""
    directory = write(tmp_path / "own")
    (directory / name).rename(tmp_path / name)
    (directory / name).symlink_to(tmp_path / name)
    assert refused(directory) == [f"{name}: leads out of the service's directory: put the file itself there"]


def test_what_is_no_directory_holds_no_manifest(tmp_path: Path) -> None:
    """There is nothing else to tell then."""
    assert refused(tmp_path / "nothing") == ["service.toml: no such file"]
    (tmp_path / "file").touch()
    assert refused(tmp_path / "file") == ["service.toml: no such file"]


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    """Of manifest and protos together, and of the script; those of the protos' text come first."""
    manifest = MANIFEST.replace("y/Check", "y/Chek").replace("v1.Pricing", "v1.Prices")
    said = refused(write(tmp_path, manifest, script=b"\xff"))
    assert [line.partition(": ")[0] for line in said] == ["pricing.lua:1", "service.toml:4", "service.toml:7"]
    said = refused(write(tmp_path, MANIFEST, PROTO + "message Item {}", script=b"\xff"))
    assert [line.partition(": ")[0] for line in said] == ["pricing.lua:1", "shop.proto:11"]
