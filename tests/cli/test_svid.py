"""``mesh svid``: files that fit together at any moment, for their owner alone."""

from __future__ import annotations

import json
import ssl
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from mesh.cli import svid_files
from mesh.cli.svid_files import SvidFiles
from mesh.core.names import Identity, InstanceId
from mesh.rpc.svid import Svid
from tests.cli.command import Up, up
from tests.cli.test_up import one_line
from tests.rpc.pair import World

pytestmark = pytest.mark.timeout(120)

ORDERS = Identity.parse("spiffe://test.example/orders")
NAMES = ("svid.pem", "key.pem", "bundle.pem")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Run a mesh for all tests here."""
    with up(tmp_path_factory.mktemp("svid") / "mesh") as started:
        yield started


@pytest.fixture
def svids() -> list[Svid]:
    """Give certificates with keys."""
    world = World()
    return [world.svid(ORDERS, InstanceId(bytes([number]) * 16)) for number in range(4)]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def fits(directory: Path) -> bool:
    """Whether the key is that of the certificate, read as who follows ``current`` once reads them."""
    chosen = directory / (directory / "current").readlink()
    leaf = x509.load_pem_x509_certificate((chosen / "svid.pem").read_bytes())
    key = load_pem_private_key((chosen / "key.pem").read_bytes(), None)
    how = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return leaf.public_key().public_bytes(*how) == key.public_key().public_bytes(*how)


def test_the_certificate_of_a_service_is_written_for_its_owner_alone(running: Up, tmp_path: Path) -> None:
    """What auth issued, usable for TLS, in files that nobody else reads."""
    out = tmp_path / "new" / "orders"
    done = running.mesh("svid", "--service", "orders", "--out", out, "--once")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    leaf = x509.load_pem_x509_certificate((out / "current" / "svid.pem").read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://shop.example/orders"]
    assert leaf.subject.rfc4514_string() == f"CN={said['instance']}"
    assert leaf.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ") == said["expires"]
    context = ssl.create_default_context(cafile=str(out / "current" / "bundle.pem"))
    context.load_cert_chain(out / "current" / "svid.pem", out / "current" / "key.pem")
    assert [mode(out / "current" / name) for name in NAMES] == [0o600] * 3
    assert mode(out) == mode(out / "current") == 0o700
    assert running.json("status")["nodes"] == []


def test_the_token_has_to_be_that_of_the_service(running: Up, tmp_path: Path) -> None:
    """Refused in one line, and no file is written."""
    token = running.mesh("token", "create", "billing").stdout
    options = ("--service", "orders", "--out", tmp_path / "out", "--once", "--token-file", "-")
    done = running.mesh("svid", *options, stdin=token)
    assert done.returncode == 3
    assert "the token is for billing, not orders, and used up now" in one_line(done.stderr)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_directory_that_others_can_read_is_refused(running: Up, tmp_path: Path) -> None:
    """Before anything is asked of auth."""
    (tmp_path / "open").mkdir(mode=0o755)
    done = running.mesh("svid", "--service", "orders", "--out", tmp_path / "open", "--once")
    assert done.returncode == 1
    assert "mode 0700" in one_line(done.stderr)


def test_secrets_for_an_envoy_name_the_files_and_what_to_watch(svids: list[Svid], tmp_path: Path) -> None:
    """By paths that do not change, so that they are written once."""
    out = tmp_path / "out: #1"
    files = SvidFiles(out)
    files.write(svids[0])
    before = (out / "sds-svid.yaml").stat()
    files.write(svids[1])
    assert (out / "sds-svid.yaml").stat().st_ino == before.st_ino
    (pair,) = yaml.safe_load((out / "sds-svid.yaml").read_text())["resources"]
    (roots,) = yaml.safe_load((out / "sds-bundle.yaml").read_text())["resources"]
    assert (pair["name"], roots["name"]) == ("svid", "bundle")
    named = [
        pair["tls_certificate"]["certificate_chain"],
        pair["tls_certificate"]["private_key"],
        roots["validation_context"]["trusted_ca"],
    ]
    assert [one["filename"] for one in named] == [str(out / "current" / name) for name in NAMES]
    for secret in (pair["tls_certificate"], roots["validation_context"]):
        assert secret["watched_directory"] == {"path": str(out)}


def test_the_files_fit_together_whenever_they_are_read(svids: list[Svid], tmp_path: Path) -> None:
    """Also while they are replaced again and again; what is no longer needed goes."""
    files = SvidFiles(tmp_path / "out")
    files.write(svids[0])
    ended = threading.Event()

    def replace() -> None:
        for number in range(100):
            files.write(svids[number % len(svids)])
        ended.set()

    writer = threading.Thread(target=replace)
    writer.start()
    looks = 0
    while not ended.is_set() or not looks:
        try:
            assert fits(tmp_path / "out")
        except FileNotFoundError:
            continue  # replaced twice in the course of one look
        looks += 1
    writer.join()
    assert looks
    assert fits(tmp_path / "out")
    assert len(list((tmp_path / "out").glob(".svid-*"))) == 2


def test_what_cannot_be_written_leaves_what_was_there(
    svids: list[Svid], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in the middle of it: the files before stay, and nothing half written beside them."""
    files = SvidFiles(tmp_path / "out")
    files.write(svids[0])
    before = (tmp_path / "out" / "current").readlink()
    real = svid_files._write

    def full(path: Path, content: bytes) -> None:
        if path.name == "bundle.pem":
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(svid_files, "_write", full)
    with pytest.raises(OSError, match="No space"):
        files.write(svids[1])
    assert (tmp_path / "out" / "current").readlink() == before
    assert fits(tmp_path / "out")
    assert len(list((tmp_path / "out").glob(".svid-*"))) == 1
