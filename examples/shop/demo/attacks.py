"""Every attack of the demo, in the order in which they are tried, by who tries them."""

from examples.shop.demo import impostors, on_the_wire, scripts, thieves
from examples.shop.demo.attack import Attack

_ON_THE_WIRE = "Attacks between orders and payments, with the TLS keys of both: "

ATTACKS: dict[str, tuple[Attack, ...]] = {
    _ON_THE_WIRE + "on what orders asks": on_the_wire.REQUESTS,
    _ON_THE_WIRE + "on what payments answers": on_the_wire.REPLIES,
    "Attacks by mallory, a member of the mesh that the policy does not name": impostors.MALLORY,
    "Honest services that go too far": impostors.TOO_FAR,
    "Attacks at the door": thieves.JOINING,
    "A service in Lua, whose script is an enemy's": scripts.SCRIPTS,
}
