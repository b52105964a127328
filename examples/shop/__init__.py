"""A small shop: ``frontend`` and ``inventory`` behind sidecars, ``orders`` and ``payments`` embedded.

``v1/``          the protos and their stubs
``frontend``     Python, an ordinary gRPC service; calls orders and inventory through its sidecar
``orders``       Python, embedded; calls inventory and payments
``payments``     Python, embedded
``node/``        inventory, in JavaScript: an ordinary gRPC service; calls orders through its sidecar
``pricing/``     Lua, in a jail; calls inventory
``gremlin/``     Lua, in a jail, by an enemy: what it tries is stopped
``inventory``    the same in Python, for machines without Node
``serve``        runs an ordinary service, ``joined`` one with the mesh inside; ``refusal`` is how they say no
``customer``     a command that buys something
``policy.yaml``  who may call whom
``demo/``        the shop on a mesh of its own, then attacked: ``mesh demo``
"""

from pathlib import Path

SHOP = Path(__file__).parent
