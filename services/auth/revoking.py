"""Who is a member no more: what operators revoke and ban, and what is told of it.

It belongs to ``authority``'s one thread. Who is asking was proved and is known (``revocation_service``).
"""

from collections.abc import Callable
from typing import Final

from mesh.core.audit import Entry, Kind
from mesh.core.names import AUTH, OPERATOR, InstanceId, ServiceName
from mesh.core.receiver import Peer
from mesh.core.revoked import MAX_REVOKED
from mesh.v1 import revocation_pb2
from services.auth.audit import by_whom, report
from services.auth.errors import ConflictError, InvalidError, MissingError
from services.auth.revocation_store import Done, Order, Revocation
from services.auth.roots import Roots
from services.auth.store import Store

MAX_REASON: Final = 200


class Revoking:
    """Revokes instances and bans services."""

    def __init__(self, store: Store, roots: Roots, now_ms: Callable[[], int]) -> None:
        """Take the rows, the epochs whose keys members hold, and auth's clock."""
        self._store, self._rows, self._roots, self._now = store, store.revocations, roots, now_ms
        self.revision = 0
        """Goes up with every change."""
        self._banned = frozenset(one.service for one in self._rows.banned())

    def take_up(self) -> None:
        """Take what other auths may have changed."""
        self._banned = frozenset(one.service for one in self._rows.banned())
        self.revision += 1

    def is_banned(self, service: ServiceName) -> bool:
        """Whether nobody may join as a service, nor have keys for calling it."""
        return service.text in self._banned

    def check_open(self, service: ServiceName) -> None:
        """Raise ``ConflictError`` for a service that nobody may join as."""
        if self.is_banned(service):
            raise ConflictError(f"{service} is banned: lift that first with mesh unban {service}")

    def revoke(self, request: revocation_pb2.RevokeRequest, by: Peer) -> Done:
        """Revoke an instance, or all that a service has now; raise ``InvalidError`` or ``MissingError``.

        What was revoked before stays so, and is no error; nor is it if nodes cannot be told of all.
        """
        service, instance = _service(request.service), _instance(request.instance)
        if service == AUTH:
            raise InvalidError("auth cannot be revoked: it is who revokes")
        if service.reserved and not request.force:
            raise InvalidError(f"{service} is the mesh's own: use --force to revoke it all the same")
        if instance is not None:
            known = self._store.instance(instance)
            if known is None or known.service != service:
                raise MissingError(f"no such instance of {service}: mesh status lists those that are there")
        return self._carry_out(service, instance, request.reason, by, ban=False)

    def ban(self, request: revocation_pb2.BanRequest, by: Peer) -> Done:
        """Revoke all that a service has and let none join; raise ``InvalidError``."""
        service = _service(request.service)
        if service in (AUTH, OPERATOR):
            raise InvalidError(f"{service} cannot be banned: nobody could lift that again")
        if service.reserved and not request.force:
            raise InvalidError(f"{service} is the mesh's own: use --force to ban it all the same")
        return self._carry_out(service, None, request.reason, by, ban=True)

    def unban(self, request: revocation_pb2.UnbanRequest, by: Peer) -> None:
        """Let a service join again; raise ``MissingError`` if it is not banned."""
        service = _service(request.service)
        entry = self._entry(service, request.reason, by, "unban")
        if not self._rows.unban(service, entry):
            raise MissingError(f"{service} is not banned: mesh revoked lists what is")
        self._banned -= {service.text}
        self.revision += 1
        report(entry)

    def list(self) -> list[Revocation]:
        """Give what is banned, then what is revoked and not forgotten."""
        return [*self._rows.banned(), *self._rows.revoked()]

    def told(self) -> revocation_pb2.Revocations:
        """Give what gatekeeper is told."""
        instances = [
            revocation_pb2.RevokedInstance(instance=one.instance.raw, until_ms=one.until_ms)
            for one in self._rows.revoked()
            if one.instance
        ]
        return revocation_pb2.Revocations(instances=instances, banned=sorted(self._banned))

    def _carry_out(
        self, service: ServiceName, instance: InstanceId | None, reason: str, by: Peer, *, ban: bool
    ) -> Done:
        entry = self._entry(service, reason, by, "revoke")
        until_ms = max(epoch.accepted_until_ms for epoch in self._roots.epochs())
        order = Order(
            service, instance, entry.at_ms, until_ms, entry.by, reason, ban, by.instance, MAX_REVOKED
        )
        done = self._rows.revoke(order, entry)
        self._banned |= {service.text} if ban else frozenset()
        self.revision += 1
        for one in done.entries:
            report(one)
        return done

    def _entry(self, service: ServiceName, reason: str, by: Peer, event: str) -> Entry:
        if len(reason) > MAX_REASON or not all(letter.isprintable() for letter in reason):
            raise InvalidError(f"the reason is not one line of up to {MAX_REASON} characters: make it that")
        return Entry(self._now(), Kind.REVOCATION, event, service=service.text, by=by_whom(by), detail=reason)


def _service(text: str) -> ServiceName:
    try:
        return ServiceName(text)
    except ValueError as error:
        raise InvalidError(str(error)) from None


def _instance(raw: bytes) -> InstanceId | None:
    try:
        return InstanceId(raw) if raw else None
    except ValueError as error:
        raise InvalidError(str(error)) from None
