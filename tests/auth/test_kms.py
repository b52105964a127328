"""A KEK kept by AWS KMS, against a real server of its protocol (moto)."""

import json
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

from services.auth.directory import DataDirectory
from services.auth.errors import ConflictError, StartError
from services.auth.founding import found
from services.auth.kms import CONTEXT, AwsKms, kms
from services.auth.rekey import rotate_kek
from tests.auth.test_secrets import everything, spellings
from tests.auth.world import DOMAIN, START_MS, World

REGION = "eu-central-1"
KEK = bytes(range(32))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Run a server."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def key(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Be a user of it, and make a key there; give its ARN."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    made: str = boto3.client("kms").create_key()["KeyMetadata"]["Arn"]
    return made


def test_what_it_seals_it_opens(key: str) -> None:
    """By ARN and by id; and it is bound to its use."""
    sealed = AwsKms(key).seal(KEK)
    assert not any(one in sealed for one in spellings(KEK))
    assert kms(f"aws:{key}").open(sealed) == KEK
    assert kms(f"aws:{key.rpartition('/')[2]}").open(sealed) == KEK
    client = boto3.client("kms")
    with pytest.raises(client.exceptions.InvalidCiphertextException):
        client.decrypt(CiphertextBlob=sealed, EncryptionContext={"sealmesh": "other"})
    assert client.decrypt(CiphertextBlob=sealed, EncryptionContext=CONTEXT)["Plaintext"] == KEK


def test_a_mesh_is_founded_on_it(key: str, world: World) -> None:
    """The key file is of use only through the KMS, and the KEK is nowhere on the disk."""
    path = world.path.with_name("kms")
    found(path, DOMAIN, START_MS, f"aws:{key}")
    held = json.loads((path / "kek").read_bytes())
    assert held["kms"] == f"aws:{key}"
    with DataDirectory(path) as directory:
        assert directory.keks.keeper == f"aws:{key}"
        assert not any(one in everything(path, ()) for one in spellings(directory.kek.reveal()))


def test_it_takes_over_from_a_file_and_back(key: str, world: World) -> None:
    """A running mesh moves to the KMS, rotates there, and moves back, with all that it has."""
    token = world.token()
    for keeper, kept in ((f"aws:{key}", f"aws:{key}"), (None, f"aws:{key}"), ("", "")):
        rotate_kek(world.directory, keeper, "", world.now_ms)
        assert world.directory.keks.keeper == kept
        world.restart()
        assert len((world.path / "kek").read_bytes()) == 32 or kept
    assert world.join(token).credentials.service == "orders"


def test_a_kms_that_is_not_there_stops_no_running_mesh(
    key: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """auth that runs goes on; one that is to start says in one line what is wrong."""
    rotate_kek(world.directory, f"aws:{key}", "", world.now_ms)
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        assert world.node().credentials.service == "orders"
        with pytest.raises(ConflictError, match="AWS KMS does not encrypt"):
            rotate_kek(world.directory, None, "", world.now_ms)
        world.stop()
        with pytest.raises(StartError, match="AWS KMS does not decrypt with") as refused:
            world.start()
        assert "\n" not in str(refused.value)
    world.start()


def test_a_key_that_is_not_there_or_not_ours(key: str) -> None:
    """An unknown key, another key than the one that sealed, something else sealed under it: refused."""
    with pytest.raises(StartError, match="AWS KMS does not encrypt"):
        AwsKms(f"{key}0").seal(KEK)
    sealed = AwsKms(key).seal(b"short")
    with pytest.raises(StartError, match="sealed something that is no KEK"):
        AwsKms(key).open(sealed)
    with pytest.raises(StartError, match="AWS KMS does not decrypt"):
        AwsKms(key).open(b"nothing of the kind")


@pytest.mark.parametrize("name", ["", "aws", "aws:", "gcp:key", "vault:transit/mesh"])
def test_an_unknown_kms(name: str) -> None:
    """What is no KMS known here is refused by name."""
    with pytest.raises(StartError, match="unknown KMS"):
        kms(name)


def test_without_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with pytest.raises(StartError, match=r"pip install 'sealmesh\[aws\]'"):
        AwsKms("key").seal(KEK)
