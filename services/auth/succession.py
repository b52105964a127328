"""The succession of certificate authorities: when the next is made and signs, how long one is trusted. Pure.

           begins to sign        half               last sixth      ends
    n      |---------------------|------------------|===============|
    n+1                          made, published    begins to sign
    n      is trusted until its last certificate has ended: one SVID's life after n+1 has begun

When an authority begins and ends stands in its own certificate. Every node that lives comes for a new
certificate, and the trust bundle with it, at least once in an SVID's life; so the next authority is never
published for less than that before it signs, unless the one before ends sooner.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from services.auth.errors import InvalidError

#: Parts of its life: a third lies between publishing and signing, a sixth remains for what the old signed.
SIXTH = 6
_ROUNDED_MS = 1000


@dataclass(frozen=True, slots=True, order=True)
class Reign:
    """The life of an authority: the number of its generation, when it begins to sign and when it ends."""

    number: int
    begins_ms: int
    ends_ms: int


@dataclass(frozen=True, slots=True)
class Succession:
    """How long new authorities last, and the longest life of what they sign."""

    life_ms: int
    svid_ms: int

    def check(self) -> None:
        """Raise ``InvalidError`` if an authority would end before those who have to know of the next do."""
        if self.life_ms < SIXTH * self.svid_ms:
            raise InvalidError(
                f"a CA of {self.life_ms // 1000} s is too short for certificates of "
                f"{self.svid_ms // 1000} s: let it last {SIXTH} times as long, or longer"
            )

    def due(self, reigns: Iterable[Reign], now_ms: int) -> Reign | None:
        """Give the authority that has to be made now, if one has."""
        newest = max(reigns)
        if now_ms < _half(newest) or now_ms < newest.begins_ms:
            return None
        return self._after(newest, max(_last_sixth_ms(newest), now_ms + self.longest_ms), now_ms)

    def forced(self, reigns: Iterable[Reign], now_ms: int) -> Reign:
        """Give an authority that is to sign as soon as everybody can know of it."""
        return self._after(max(reigns), now_ms + self.longest_ms, now_ms)

    def trusted(self, reigns: Iterable[Reign], now_ms: int) -> list[Reign]:
        """Give those that are in the trust bundle, newest first."""
        kept = sorted(reigns, reverse=True)
        return [reign for reign in kept if now_ms < self.trusted_until_ms(reign, kept)]

    def trusted_until_ms(self, reign: Reign, reigns: Iterable[Reign]) -> int:
        """When an authority leaves the trust bundle, by what is known of those after it."""
        after = min((one for one in reigns if one > reign), default=None)
        return min(reign.ends_ms, after.begins_ms + self.longest_ms) if after else reign.ends_ms

    def followed_at_ms(self, reign: Reign, reigns: Iterable[Reign]) -> int:
        """When the next takes over from an authority."""
        after = min((one for one in reigns if one > reign), default=None)
        return after.begins_ms if after else _last_sixth_ms(reign)

    @property
    def longest_ms(self) -> int:
        """How long a certificate lives at most: it ends at a whole second, the one above."""
        return self.svid_ms + _ROUNDED_MS

    def _after(self, newest: Reign, begins_ms: int, now_ms: int) -> Reign:
        # Nothing of an authority lives beyond its end: whoever has not heard of the next by then has to join.
        begins_ms = max(now_ms, min(begins_ms, newest.ends_ms))
        return Reign(newest.number + 1, begins_ms, begins_ms + self.life_ms)


def signing(reigns: Iterable[Reign], now_ms: int) -> Reign:
    """Give the newest authority that has begun to sign."""
    return max(reign for reign in reigns if reign.begins_ms <= now_ms)


def _last_sixth_ms(reign: Reign) -> int:
    return reign.ends_ms - (reign.ends_ms - reign.begins_ms) // SIXTH


def _half(reign: Reign) -> int:
    return reign.begins_ms + (reign.ends_ms - reign.begins_ms) // 2
