"""Making a trust domain: CA, policy key, KEK, operator's credential and database, all of it or nothing.

It is built beside the place where it will be, written through to the disk, and moved there in one step, which
fails if anything is there. The first epoch is made when auth first starts, and lasts as that is told.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mesh.core.audit import Entry
from mesh.core.audit import Kind as EntryKind
from mesh.core.chain import Limits
from mesh.core.keys import KEY_BYTES, Key
from mesh.core.names import OPERATOR, TrustDomain
from mesh.core.policy import Policy
from services.auth import directory
from services.auth.admission import new_token
from services.auth.audit_log import AuditLog, begin
from services.auth.ca import CA_LIFE_MS, CertificateAuthority
from services.auth.directory import sealed_secret
from services.auth.durable import sync, write_secret
from services.auth.errors import StartError
from services.auth.kek import KEK, content_of, key_in
from services.auth.location import Location
from services.auth.policies import PolicySigner
from services.auth.records import CA, CHECK, POLICY, Kind
from services.auth.store import Store
from services.auth.tokens import OPERATOR_LIFE_MS
from services.auth.vault import Vault


def found(
    path: Path,
    domain: TrustDomain,
    now_ms: int,
    keeper: str = "",
    ca_ms: int = CA_LIFE_MS,
    database: str = "",
    kek: bytes = b"",
) -> None:
    """Make the data directory of a new trust domain, its KEK kept by a KMS or, with ``""``, by its file.

    ``ca_ms`` is how long its first authority lasts, ``database`` the URL of an empty PostgreSQL database, or
    ``""`` for a file in the directory; ``kek`` the content of a key file that there is.

    Raises ``StartError`` and leaves nothing behind.
    """
    location = Location.new(database)
    build(path, lambda scratch: _found(scratch, domain, now_ms, kek or _kek(keeper), ca_ms, location))


def new_kek(file: Path, keeper: str) -> None:
    """Make a key file for a trust domain that is not made yet, kept by a KMS or (``""``) as it is.

    Raises ``StartError``, also if the file is there.
    """
    content = _kek(keeper)
    try:
        write_secret(file, content)
    except OSError as error:
        raise StartError(f"cannot make {file}: {error.strerror}: name a new file") from None


def build(path: Path, make: Callable[[Path], None]) -> None:
    """Make a directory whole or not at all; raise ``StartError`` if it is there and not empty."""
    target = path.resolve()
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise StartError(f"{path} is not empty: choose another directory")
        if target == Path.cwd():
            raise StartError("cannot make the directory that you are in: name another")
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            make(scratch)
            _write_through(scratch)
            scratch.rename(target)
            sync(target.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise StartError(
            f"cannot make {path}: {error.strerror}: choose a directory in one that you may write to"
        ) from None


def _kek(keeper: str) -> bytes:
    return content_of(Key(os.urandom(KEY_BYTES)), keeper)


def _found(path: Path, domain: TrustDomain, now_ms: int, kek: bytes, ca_ms: int, location: Location) -> None:
    vault = Vault(key_in(kek, path / KEK))
    ca, ca_key = CertificateAuthority.create(domain, now_ms, ca_ms)
    policy_key = Ed25519PrivateKey.generate().private_bytes_raw()
    signer = PolicySigner(domain, policy_key)
    secrets = (
        sealed_secret(vault, domain, CHECK, b"", b"mesh"),
        sealed_secret(vault, domain, CA, ca.certificate, ca_key),
        sealed_secret(vault, domain, POLICY, signer.public_key, policy_key),
    )
    credential, token = new_token(vault, Kind.OPERATOR, OPERATOR, OPERATOR_LIFE_MS, now_ms)
    write_secret(path / KEK, kek)
    write_secret(path / directory.OPERATOR, json.dumps({"token": credential.text}).encode() + b"\n")
    location.write(path)
    store = Store(location.open(path, new=True), location.replica)
    try:
        nothing = Policy.parse(b'{"services": {}}')
        store.found(domain, secrets, signer.sign(0, nothing, now_ms), begin(vault, domain, path))
        store.logs.audit = AuditLog.open(path, vault, domain, store.logs.rows(), Limits(), location.replica)
        made = Entry(now_ms, EntryKind.KEY, "trust domain made", token_id=token.id, detail=domain.text)
        store.add_token(token, made)
    finally:
        store.close()


def _write_through(path: Path) -> None:
    for file in path.iterdir():
        sync(file)
    sync(path)
