"""What operators ask of the mesh's own keys. Who is asking was proved and is known (``key_service``).

It belongs to ``authority``'s one thread.
"""

from collections.abc import Callable, Iterator

from mesh.core.receiver import Peer
from mesh.v1 import keys_pb2
from services.auth.audit import by_whom
from services.auth.authorities import Authorities
from services.auth.backup import take
from services.auth.credential import HALF_MS, Credential, end_sessions, make_credential
from services.auth.directory import DataDirectory
from services.auth.epochs import accepted
from services.auth.rekey import rotate_kek
from services.auth.roots import Roots


class Keeping:
    """Looks after the keys of one trust domain."""

    def __init__(
        self, directory: DataDirectory, authorities: Authorities, roots: Roots, now_ms: Callable[[], int]
    ) -> None:
        """Take an opened directory, what is in force, and auth's clock, which turns what is due."""
        self._directory, self._authorities, self._roots, self._now = directory, authorities, roots, now_ms
        self._credential = Credential(directory)
        self.revoked: Callable[[], None] = lambda: None
        """Takes up that instances were revoked."""

    def turn(self, now_ms: int) -> None:
        """Keep the operator's credential good; raise ``AuthError`` where that is not possible now."""
        self._credential.turn(now_ms)

    def list(self) -> keys_pb2.ListKeysResponse:
        """Tell what is in force, what is next, and when."""
        now_ms = self._now()
        keys = [*self._epochs(now_ms), *self._cas(now_ms), self._kek(), *self._credentials(now_ms)]
        return keys_pb2.ListKeysResponse(keys=keys, now_ms=now_ms)

    def rotate_epoch(self, by: Peer) -> keys_pb2.RotateKeyResponse:
        """Have another epoch begin as soon as every node can know of it; see ``Roots.force``."""
        now_ms = self._now()
        begins_ms = now_ms + self._authorities.succession.longest_ms
        made = self._roots.force(begins_ms, by_whom(by), now_ms)
        return keys_pb2.RotateKeyResponse(id=str(made.number.number), begins_ms=made.begins_ms)

    def rotate_ca(self, by: Peer) -> keys_pb2.RotateKeyResponse:
        """Have another CA sign as soon as every node can know of it; raise ``AuditError``."""
        made = self._authorities.force(by_whom(by), self._now())
        return keys_pb2.RotateKeyResponse(id=str(made.number), begins_ms=made.begins_ms)

    def rotate_kek(self, keeper: str | None, by: Peer) -> keys_pb2.RotateKeyResponse:
        """Put a new KEK in the place of the one in force; see ``rekey`` for what it raises."""
        now_ms = self._now()
        made = rotate_kek(self._directory, keeper, by_whom(by), now_ms)
        return keys_pb2.RotateKeyResponse(id=made, begins_ms=now_ms)

    def rotate_operator(self, by: Peer) -> keys_pb2.RotateKeyResponse:
        """Make a new operator's credential and revoke every one before, and who joined by them but ``by``.

        See ``make_credential``.
        """
        now_ms = self._now()
        made = make_credential(self._directory, by_whom(by), now_ms, revoke=True)
        end_sessions(self._directory, by_whom(by), now_ms, by.instance)
        self.revoked()
        return keys_pb2.RotateKeyResponse(id=made.id, begins_ms=now_ms, credential=made.text)

    def back_up(self, by: Peer) -> Iterator[bytes]:
        """Give the bytes of a backup of the state as it is now; see ``backup.take``."""
        return take(self._directory, by_whom(by), self._now())

    def _epochs(self, now_ms: int) -> Iterator[keys_pb2.KeyInfo]:
        current = self._roots.current(now_ms)
        for epoch in reversed(accepted(self._roots.epochs(), now_ms)):
            yield keys_pb2.KeyInfo(
                kind=keys_pb2.KEY_KIND_EPOCH,
                id=str(epoch.number.number),
                state=_state(epoch > current, epoch < current),
                since_ms=epoch.begins_ms,
                next_ms=epoch.ends_ms,
                until_ms=epoch.accepted_until_ms,
            )

    def _cas(self, now_ms: int) -> Iterator[keys_pb2.KeyInfo]:
        reigns, succession = self._authorities.reigns, self._authorities.succession
        signs = max(reign for reign in reigns if reign.begins_ms <= now_ms)
        for reign in reversed(reigns):
            yield keys_pb2.KeyInfo(
                kind=keys_pb2.KEY_KIND_CA,
                id=str(reign.number),
                state=_state(reign > signs, reign < signs),
                since_ms=reign.begins_ms,
                next_ms=succession.followed_at_ms(reign, reigns),
                until_ms=succession.trusted_until_ms(reign, reigns),
            )

    def _kek(self) -> keys_pb2.KeyInfo:
        return keys_pb2.KeyInfo(
            kind=keys_pb2.KEY_KIND_KEK,
            id=self._directory.vault.kek_id.hex(),
            state=keys_pb2.KEY_STATE_IN_FORCE,
            keeper=self._directory.keks.keeper,
        )

    def _credentials(self, now_ms: int) -> Iterator[keys_pb2.KeyInfo]:
        for older, token in enumerate(self._credential.all(now_ms)):
            yield keys_pb2.KeyInfo(
                kind=keys_pb2.KEY_KIND_OPERATOR,
                id=token.id,
                state=_state(False, older > 0),
                since_ms=token.created_ms,
                next_ms=token.created_ms + HALF_MS,
                until_ms=token.expires_ms,
            )


def _state(later: bool, earlier: bool) -> "keys_pb2.KeyState.ValueType":
    if later:
        return keys_pb2.KEY_STATE_NEXT
    return keys_pb2.KEY_STATE_PREVIOUS if earlier else keys_pb2.KEY_STATE_IN_FORCE
