"""Time zones: what is misspelt refuses the policy, what only this machine lacks does not."""

from __future__ import annotations

import json

import pytest

from mesh.core.document import PolicyError
from mesh.core.policy import Policy
from mesh.core.zones import check_zones, is_known

NAMES = frozenset({"Europe/Berlin", "Europe/Paris", "Europe/Zurich", "Mars/Olympus"})
LIST = "use a TZ of https://data.iana.org/time-zones/tzdb/zone1970.tab, or an offset as +02:00"


def policy(*zones: str) -> Policy:
    rule = {"principals": ["a"], "paths": ["*"]}
    deny = [rule, *(rule | {"when": f'time.getHours("{zone}") > 7'} for zone in zones)]
    return Policy.parse(json.dumps({"services": {"a": {"deny": deny}}}))


def test_what_is_known() -> None:
    """Names and offsets that conditions can be judged with; what is misspelt is none."""
    zones = ("UTC", "+02:00", "Europe/Berlin", "Europe/Berln")
    assert [is_known(zone) for zone in zones] == [True, True, True, False]


def test_good_zones_are_not_looked_up() -> None:
    """The list of all names is asked for only where there is a doubt."""
    check_zones(policy("UTC", "-11:30", "Europe/Berlin"), lambda: pytest.fail("asked"))


def test_a_zone_that_only_this_machine_lacks() -> None:
    """It may be known at the nodes; and where no names are known at all, nobody can tell."""
    check_zones(policy("Mars/Olympus"), lambda: NAMES)
    check_zones(policy("Europe/Berln"), frozenset)


@pytest.mark.parametrize(
    ("zone", "advice"),
    [
        ("Europe/Berln", "did you mean 'Europe/Berlin'?"),
        ("Europe/Brelin", "did you mean 'Europe/Berlin'?"),
        ("Europe/BerLinn", "did you mean 'Europe/Berlin'?"),
        ("Qqq", LIST),
        ("Europe/Bern", LIST),
        ("Europe/Munich", LIST),
    ],
)
def test_a_zone_that_there_is_not(zone: str, advice: str) -> None:
    """It is refused with its place, and with the name that was meant if one is near."""
    with pytest.raises(PolicyError) as refused:
        check_zones(policy("UTC", zone), lambda: NAMES)
    assert str(refused.value) == f"policy.services.a.deny[2].when: there is no time zone {zone!r}: {advice}"
