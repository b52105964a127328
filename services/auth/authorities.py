"""The certificate authorities in force: the one that signs, the next, and those still trusted.

Each is a version of the secret ``ca``, its certificate the public part. One is made, sealed and committed
before anybody hears of it. The private key of one that signs no more is destroyed; when the last certificate
that it signed has ended, it is forgotten. ``turn`` is cheap, and is called before every answer.
"""

from collections.abc import Callable, Iterable, Mapping

from mesh.core.audit import Entry, Kind
from mesh.core.names import TrustDomain
from services.auth.ca import CertificateAuthority
from services.auth.errors import AuditError
from services.auth.records import CA, Secret, secret_place
from services.auth.store import Store
from services.auth.succession import Reign, Succession, signing
from services.auth.vault import Vault


class Authorities:
    """The authorities of one trust domain, opened."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        domain: TrustDomain,
        succession: Succession,
        held: Mapping[int, CertificateAuthority],
        told: Callable[[Entry], None],
    ) -> None:
        """Take those that were found, by generation; at least one.

        ``told`` is called with what the audit log cannot take now: keys turn without it.
        """
        self._store, self._vault, self._domain, self._succession = store, vault, domain, succession
        self._told = told
        self.take_up(held)

    def take_up(self, held: Mapping[int, CertificateAuthority]) -> None:
        """Take those that are in the database, by generation."""
        self._held = {Reign(number, one.begins_ms, one.ends_ms): one for number, one in held.items()}

    @property
    def reigns(self) -> list[Reign]:
        """When each that is kept begins and ends, oldest first."""
        return sorted(self._held)

    def turn(self, now_ms: int) -> None:
        """Make the next if it is due, destroy the key of one that signs no more, forget one that is over."""
        if due := self._succession.due(self._held, now_ms):
            reign, made, secret = self._make(due)
            self._put([secret], [], [_made(reign, now_ms)])
            self._held[reign] = made
        self._retire(now_ms)

    def force(self, by: str, now_ms: int) -> Reign:
        """Make one that signs as soon as everybody can know of it, in place of one that has yet to begin.

        Raises ``AuditError`` where that cannot be logged, and has done nothing.
        """
        unborn = {reign for reign in self._held if reign.begins_ms > now_ms}
        forced = self._succession.forced(self._held.keys() - unborn, now_ms)
        number = max(self._held).number + 1
        reign, made, secret = self._make(Reign(number, forced.begins_ms, forced.ends_ms))
        self._store.keys.put_secrets([secret], _versions(unborn), [_made(reign, now_ms, by)])
        self._held = {kept: one for kept, one in self._held.items() if kept not in unborn} | {reign: made}
        return reign

    @property
    def succession(self) -> Succession:
        """By what they follow each other."""
        return self._succession

    def signing(self, now_ms: int) -> CertificateAuthority:
        """Give the one that signs."""
        return self._held[signing(self._held, now_ms)]

    def trusted(self, now_ms: int) -> list[Reign]:
        """Give those that are trusted, newest first."""
        return self._succession.trusted(self._held, now_ms)

    def bundle(self, now_ms: int) -> list[bytes]:
        """Give the certificates to trust, DER, newest first."""
        return [self._held[reign].certificate for reign in self.trusted(now_ms)]

    def _make(self, due: Reign) -> tuple[Reign, CertificateAuthority, Secret]:
        made, key = CertificateAuthority.create(self._domain, due.begins_ms, due.ends_ms - due.begins_ms)
        return (
            Reign(due.number, made.begins_ms, made.ends_ms),
            made,
            self._sealed(due.number, made.certificate, key),
        )

    def _retire(self, now_ms: int) -> None:
        in_force, trusted = signing(self._held, now_ms), set(self.trusted(now_ms))
        over = {reign for reign in self._held if reign < in_force and reign not in trusted}
        idle = {
            reign
            for reign, one in self._held.items()
            if reign < in_force and one.can_sign and reign in trusted
        }
        if not over | idle:
            return
        certificates = {reign: self._held[reign].certificate for reign in idle}
        keyless = [self._sealed(reign.number, der, b"") for reign, der in certificates.items()]
        entries = [
            Entry(now_ms, Kind.KEY, event, detail=str(reign.number))
            for event, reigns in (("CA key destroyed", idle), ("CA forgotten", over))
            for reign in sorted(reigns)
        ]
        self._put(keyless, _versions(over), entries)
        self._held = {reign: one for reign, one in self._held.items() if reign not in over}
        self._held |= {reign: CertificateAuthority(der, b"") for reign, der in certificates.items()}

    def _put(self, put: list[Secret], gone: list[tuple[str, int]], entries: list[Entry]) -> None:
        try:
            self._store.keys.put_secrets(put, gone, entries)
        except AuditError:
            self._store.keys.put_secrets(put, gone)
            for entry in entries:
                self._told(entry)

    def _sealed(self, number: int, certificate: bytes, key: bytes) -> Secret:
        sealed = self._vault.seal(key, secret_place(self._domain, CA, number))
        return Secret(CA, number, certificate, sealed)


def _versions(reigns: Iterable[Reign]) -> list[tuple[str, int]]:
    return [(CA, reign.number) for reign in reigns]


def _made(reign: Reign, now_ms: int, by: str = "") -> Entry:
    return Entry(now_ms, Kind.KEY, "CA made", by=by, detail=f"{reign.number}, signs from {reign.begins_ms}")
