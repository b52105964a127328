"""A thief of the database gets no usable key: nothing secret is in it, in whatever spelling."""

import base64
import json
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import load_der_private_key

from mesh.core.keys import join_keys
from services.auth.audit_log import AuditLog
from tests.auth.world import HOUR_MS, World
from tests.postgres import server

#: The files that hold a secret, as they should.
BESIDE: Final = ("kek", "operator.json", "audit.key")


def spellings(secret: bytes) -> list[bytes]:
    """Give what a secret looks like raw, in hex and in base64 at each alignment."""
    found = [secret, secret.hex().encode(), secret.hex().upper().encode()]
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        # Two characters at each end depend on what stands beside it.
        found += [encode(b"\0" * shift + secret)[4 : 4 + len(secret) - 3] for shift in range(3)]
    return found


def everything(path: Path, without: tuple[str, ...]) -> bytes:
    files = [file for file in path.rglob("*") if file.is_file() and file.name not in without]
    return b"".join(file.read_bytes() for file in files)


def logs(world: World) -> AuditLog:
    opened = world.store.logs.audit
    assert opened is not None
    return opened


def test_the_search_finds_what_is_there() -> None:
    """The test below can fail."""
    secret = bytes(range(100, 132))
    for shift in range(5):
        held = b"x" * shift + secret + b"yz"
        for written in (held, held.hex().encode(), base64.b64encode(held), base64.urlsafe_b64encode(held)):
            assert any(spelling in written for spelling in spellings(secret))


def test_no_secret_is_in_the_file(tmp_path: Path) -> None:
    """Neither SQLite's file nor its write-ahead log holds a root, a token's secret or a signing key."""
    world = World(tmp_path / "mesh")
    public, secrets = lived(world)
    written = everything(world.path, BESIDE)
    assert (world.path / "auth.db-wal").stat().st_size
    assert public in written
    assert found_in(written, secrets) == set()
    world.stop()


def test_no_secret_is_at_the_server(tmp_path: Path) -> None:
    """Nor does PostgreSQL write one down: not in its tables, its WAL or its own log."""
    with server() as own:
        world = World(tmp_path / "mesh", database=own.url(own.database()))
        public, secrets = lived(world)
        own.run("CHECKPOINT")
        at_server = [everything(own.home / "data" / name, ()) for name in ("base", "pg_wal")]
        assert all(public in written for written in at_server)
        written = everything(own.home, ()) + everything(world.path, BESIDE)
        assert found_in(written, secrets) == set()
        world.stop()


def found_in(written: bytes, secrets: dict[str, bytes]) -> set[str]:
    return {name for name, secret in secrets.items() if any(one in written for one in spellings(secret))}


def lived(world: World) -> tuple[bytes, dict[str, bytes]]:
    """Have an auth do a bit of everything; give something that is no secret, and all that is one."""
    token, used = world.token(), world.token()
    joined = world.join(used)
    world.time.pass_ms(HOUR_MS // 2)
    world.authority.turn()
    world.operator()
    roots = [root.reveal() for root in world.authority._roots._held.values()]
    assert len(roots) == 2
    owned = [one.secret for one in (token, used, world.credential)]
    assert world.store.keys.secrets("ca")
    key = world.ca._key
    assert key
    ca = key.private_numbers().private_value.to_bytes(32, "big")
    return token.id.encode(), {
        "kek": (world.path / "kek").read_bytes(),
        "ca": ca,
        "policy": world.directory.signer._key.private_bytes_raw(),
        "audit": (world.path / "audit.key").read_bytes(),
        **{
            f"chain {log} {part}": chain.secret[part : part + 32]
            for log, chain in logs(world)._chains.items()
            for part in (0, 32)
        },
        **{f"root {number}": root for number, root in enumerate(roots)},
        **{f"token {number}": secret.reveal() for number, secret in enumerate(owned)},
        **{
            f"proof {number}": key.reveal()
            for number, secret in enumerate(owned)
            for key in join_keys(secret)
        },
        **{f"destination {held.epoch.number}": held.key for held in joined.credentials.destination_keys},
        **{f"pair {held.destination}": held.key for held in joined.bundle.pair_keys},
    }


def test_only_three_files_are_secret(world: World) -> None:
    """KEK and audit key are in their files and nowhere else; the credential in its own unlocks no row."""
    for name in ("kek", "audit.key"):
        secret = (world.path / name).read_bytes()
        assert not any(spelling in everything(world.path, (name,)) for spelling in spellings(secret))
    assert set(json.loads((world.path / "operator.json").read_text())) == {"token"}


def test_forgotten_roots_leave_no_trace(world: World) -> None:
    """A root that is accepted no more is gone from the file, sealed as it was."""
    rows = world.store.keys.roots()
    world.time.pass_ms(3 * HOUR_MS)
    world.authority.turn()
    world.stop()
    written = everything(world.path, ())
    assert len(rows) == 2
    assert not any(row.sealed in written for row in rows)


def test_secrets_do_not_print(world: World) -> None:
    """Records and tokens show nothing of what they hold."""
    token = world.token()
    row = world.store.token(token.id)
    assert row is not None
    root, _ = world.store.keys.roots()
    for shown in (repr(row), repr(root), repr(world.store.keys.secrets("ca")), repr(token)):
        assert repr(row.sealed) not in shown
        assert "sealed" not in shown
        assert token.text.rpartition(".")[2] not in shown


def test_the_ca_key_opens_only_through_the_vault(world: World) -> None:
    """What stands in the secret's row is no key."""
    [secret] = world.store.keys.secrets("ca")
    try:
        load_der_private_key(secret.sealed, None)
    except ValueError:
        return
    raise AssertionError("the sealed CA key is a key")
