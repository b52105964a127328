"""The operator's credential: a token that is not used up, in ``operator.json`` for whoever operates here.

    half of its life is over    another is put in its place; the old one stays good to its end, for copies
    it is good no more          another is put in its place: auth could not be operated without
    the operator rotates it     another is put in its place, and every one before is revoked at once, with
                                what joined by it (``end_sessions``)

Where there is no ``operator.json`` it was taken elsewhere, and auth puts none there by itself.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from mesh.core.audit import Entry
from mesh.core.audit import Kind as EntryKind
from mesh.core.join import JoinToken
from mesh.core.names import OPERATOR, InstanceId
from mesh.core.revoked import MAX_REVOKED
from services.auth.admission import new_token
from services.auth.directory import OPERATOR as FILE
from services.auth.directory import DataDirectory
from services.auth.durable import sync, write_secret
from services.auth.errors import ConflictError
from services.auth.records import Kind, Token
from services.auth.revocation_store import Order
from services.auth.tokens import OPERATOR_LIFE_MS, State, state
from services.auth.vault import TamperedError

HALF_MS: Final = OPERATOR_LIFE_MS // 2
ROTATED: Final = "credential rotated"
#: Of sessions and all else, how many nodes are told: there is to be room for instances of services.
MOST_SESSIONS: Final = MAX_REVOKED // 2


def make_credential(directory: DataDirectory, by: str, now_ms: int, *, revoke: bool) -> JoinToken:
    """Make a credential, and write it where the one before was; revoke those before.

    Raises ``AuditError`` where that cannot be logged, and ``ConflictError`` where it cannot be written.
    """
    owned, token = new_token(directory.vault, Kind.OPERATOR, OPERATOR, OPERATOR_LIFE_MS, now_ms)
    entry = Entry(now_ms, EntryKind.KEY, "operator credential made", token_id=token.id, by=by)
    directory.store.keys.add_credential(token, entry, now_ms if revoke else None)
    write_credential(directory.path, owned)
    return owned


def end_sessions(directory: DataDirectory, by: str, now_ms: int, spared: InstanceId | None = None) -> None:
    """Revoke what has joined as operator, but for ``spared``, who has yet to be answered.

    An instance goes on without the credential that it joined by, for it renews. Raises ``AuditError``.
    """
    until_ms = max((row.epoch.accepted_until_ms for row in directory.store.keys.roots()), default=now_ms)
    entry = Entry(now_ms, EntryKind.REVOCATION, "revoke", service=OPERATOR.text, by=by, detail=ROTATED)
    order = Order(OPERATOR, None, now_ms, until_ms, by, ROTATED, False, spared, MOST_SESSIONS)
    directory.store.revocations.revoke(order, entry)


def write_credential(path: Path, credential: JoinToken) -> None:
    """Write a credential to a data directory, in place of the one there; raise ``ConflictError``."""
    scratch = path / f".{FILE}"
    try:
        with suppress(FileNotFoundError):
            scratch.unlink()
        write_secret(scratch, json.dumps({"token": credential.text}).encode() + b"\n")
        scratch.replace(path / FILE)
        sync(path)
    except OSError as error:
        raise ConflictError(f"cannot write {path / FILE}: {os.strerror(error.errno or 0)}") from None


class Credential:
    """The credential in a data directory, kept good."""

    def __init__(self, directory: DataDirectory) -> None:
        """Take an opened directory."""
        self._directory = directory

    def turn(self, now_ms: int) -> None:
        """Put another in the place of one that is good no more, or past its half."""
        if not (self._directory.path / FILE).exists():
            return
        token = self._token()
        if token is None or state(token, now_ms) is not State.OPEN or now_ms >= token.created_ms + HALF_MS:
            make_credential(self._directory, "", now_ms, revoke=False)

    def all(self, now_ms: int) -> list[Token]:
        """Give those that are good, newest first."""
        tokens = [token for token in self._directory.store.tokens() if token.kind is Kind.OPERATOR]
        return [token for token in tokens if state(token, now_ms) is State.OPEN]

    def _token(self) -> Token | None:
        # Of the credential in the file, if it is one.
        try:
            held = JoinToken.parse(json.loads((self._directory.path / FILE).read_bytes())["token"])
            token = self._directory.store.token(held.id)
            if token is None or token.kind is not Kind.OPERATOR:
                return None
            secret = self._directory.vault.open(token.sealed, token.place)
        except (OSError, ValueError, KeyError, TypeError, TamperedError):
            return None
        return token if held.secret.reveal() == secret else None
