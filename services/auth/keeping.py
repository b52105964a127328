"""What operators ask of the mesh's own keys. Who is asking was proved and is known (``key_service``).

It belongs to ``authority``'s one thread.
"""

from collections.abc import Callable

from mesh.core.receiver import Peer
from mesh.v1 import keys_pb2
from services.auth.audit import by_whom
from services.auth.authorities import Authorities
from services.auth.directory import DataDirectory
from services.auth.rekey import rotate_kek


class Keeping:
    """Looks after the keys of one trust domain."""

    def __init__(self, directory: DataDirectory, authorities: Authorities, now_ms: Callable[[], int]) -> None:
        """Take an opened directory, what is in force, and auth's clock."""
        self._directory, self._authorities, self._now = directory, authorities, now_ms

    def rotate_ca(self, by: Peer) -> keys_pb2.RotateKeyResponse:
        """Have another CA sign as soon as every node can know of it; raise ``AuditError``."""
        made = self._authorities.force(by_whom(by), self._now())
        return keys_pb2.RotateKeyResponse(id=str(made.number), begins_ms=made.begins_ms)

    def rotate_kek(self, keeper: str | None, by: Peer) -> keys_pb2.RotateKeyResponse:
        """Put a new KEK in the place of the one in force; see ``rekey`` for what it raises."""
        now_ms = self._now()
        made = rotate_kek(self._directory, keeper, by_whom(by), now_ms)
        return keys_pb2.RotateKeyResponse(id=made, begins_ms=now_ms)
