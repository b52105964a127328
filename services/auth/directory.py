"""The data directory of a trust domain: opened by one process with everything in place, or not at all.

    auth.db          the database (0600); beside it, while in use, its write-ahead log
    database.json    instead of it: where the database is, for several auths (0600), see ``location``
    kek              what opens the secrets in it (0600), see ``kek``; keep a copy elsewhere
    audit/           the audit logs (0700), see ``audit_log``
    audit.key        32 bytes that verify them (0600), which auth never reads: take it elsewhere
    operator.json    the operator's credential (0600): {"token": "mesh1.…"}
    addresses.json   where a running auth is found; not secret
    auth.lock        held by the running auth

Nothing here ever makes a missing part anew: a new CA over an old one would cut off every node.
"""

import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from mesh.core.chain import Limits
from mesh.core.keys import Key
from mesh.core.names import TrustDomain
from services.auth import audit_log
from services.auth.audit_log import AuditLog
from services.auth.ca import CertificateAuthority
from services.auth.errors import StartError
from services.auth.kek import KekFiles
from services.auth.location import Location
from services.auth.policies import PolicySigner
from services.auth.records import CA, CHECK, POLICY, Secret, secret_place
from services.auth.store import Store
from services.auth.vault import TamperedError, Vault

OPERATOR: Final = "operator.json"
ADDRESSES: Final = "addresses.json"
LOCK: Final = "auth.lock"


class DataDirectory:
    """An opened data directory, locked until it is closed."""

    def __init__(self, path: Path, audit: Limits | None = None) -> None:
        """Lock and open a directory; raise ``StartError`` with one line about what is wrong."""
        self.path = path
        if not path.is_dir():
            raise StartError(f"no data directory {path}: make one with mesh init {path}")
        self._lock = locked(path / LOCK)
        try:
            self.keks = KekFiles(path)
            self.location = Location.of(path)
            self.database = self.location.open(path)
            self.store = Store(self.database, self.location.replica)
            try:
                self._read(path)
                self.store.logs.audit = self._logs(path, audit or Limits())
            except BaseException:
                self.store.close()
                raise
        except BaseException:
            os.close(self._lock)
            raise

    def _read(self, path: Path) -> None:
        changed = f"{self.location.named(path)} was changed: restore it from a backup"
        try:
            self.domain = self.store.domain()
            self.kek = self._kek()
            self.vault = Vault(self.kek)
            [(_, signing_key)] = self._open(POLICY, changed).values()
            self.authorities = self._authorities(changed)
        except (TypeError, ValueError):
            raise StartError(changed) from None
        self.signer = PolicySigner(self.domain, signing_key)

    def _authorities(self, changed: str) -> dict[int, CertificateAuthority]:
        return {number: CertificateAuthority(*one) for number, one in self._open(CA, changed).items()}

    def take_up(self) -> None:
        """Read again what other auths may have changed; raise ``StartError``."""
        self.keks = KekFiles(self.path)
        self.take_kek()
        self.authorities = self._authorities(f"{self.location.named(self.path)} was changed: restore it")

    def take_kek(self) -> None:
        """Go on with the KEK that the database is under; raise ``StartError`` if it is not here."""
        self.kek = self._kek()
        self.vault.turn(self.kek)

    def _kek(self) -> Key:
        checks = self.store.keys.secrets(CHECK)

        def opens(kek: Key) -> bool:
            try:
                return any(self._opened(Vault(kek), check) for check in checks)
            except TamperedError:
                return False

        return self.keks.settle(opens)

    def _logs(self, path: Path, limits: Limits) -> AuditLog:
        found = self.store.logs.rows()
        if not found and not (path / audit_log.DIRECTORY).exists():
            # The database of a version that had no logs. A fresh key makes this plain to whoever has the old.
            try:
                found = audit_log.begin(self.vault, self.domain, path)
            except OSError as error:
                raise StartError(f"cannot begin the audit log in {path}: {error.strerror}") from None
            self.store.logs.begin(found)
        return AuditLog.open(path, self.vault, self.domain, found, limits, self.store.logs.replica)

    def _open(self, name: str, wrong: str) -> dict[int, tuple[bytes, bytes]]:
        try:
            found = {
                one.version: (one.public, self._opened(self.vault, one))
                for one in self.store.keys.secrets(name)
            }
        except TamperedError:
            raise StartError(wrong) from None
        if not found:
            raise StartError(wrong)
        return found

    def _opened(self, vault: Vault, secret: Secret) -> bytes:
        return vault.open(secret.sealed, secret_place(self.domain, secret.name, secret.version))

    def close(self) -> None:
        """Close the database and let go of the lock."""
        self.store.close()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sealed_secret(vault: Vault, domain: TrustDomain, name: str, public: bytes, private: bytes) -> Secret:
    """Seal a secret of a trust domain, as its first version."""
    return Secret(name, 1, public, vault.seal(private, secret_place(domain, name, 1)))


def publish_addresses(path: Path, addresses: dict[str, str]) -> None:
    """Write where auth and gatekeeper are found, at once; raise ``StartError``."""
    scratch = path / f".{ADDRESSES}"
    try:
        scratch.write_text(json.dumps(addresses) + "\n")
        scratch.replace(path / ADDRESSES)
    except OSError as error:
        raise StartError(f"cannot write {path / ADDRESSES}: {error.strerror}") from None


def withdraw_addresses(path: Path) -> None:
    """Remove what nobody serves any more, or what a run before this one may have left."""
    with suppress(OSError):
        (path / ADDRESSES).unlink()


def locked(path: Path) -> int:
    """Lock a data directory by its lock file until the descriptor is closed; raise ``StartError``."""
    # The kernel lets go of it when the process ends, however it ends.
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"cannot write {path}: {error.strerror}: give this user the directory") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StartError(f"{path.parent} is in use by another auth: stop that one first") from None
    return lock
