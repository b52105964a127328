"""Keeps in the cluster what has to be there: a good certificate that is trusted, and the join ConfigMaps.

Each is looked at again and again, and set right where it is not as it should be; what cannot be done now is
done later. Replicas do the same, and where two write at once, one gives way.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from services.injector.certificate import Certificate, renewed
from services.injector.cluster import Cluster, ClusterError

log = logging.getLogger("mesh.injector")

#: Seconds between looks. A pod of a new namespace waits so long for its ConfigMap, at most.
LOOK: Final = 5.0
_TRIES: Final = 5


def utc_now() -> dt.datetime:
    """Give the time."""
    return dt.datetime.now(dt.UTC)


async def certify(cluster: Cluster, name: str, now: Callable[[], dt.datetime] = utc_now) -> Certificate:
    """See that there is a good certificate for a name and that it is trusted; raise ``ClusterError``."""
    for _ in range(_TRIES):
        held = await cluster.certificate()
        if held is not None and not held.certificate.due(name, now()):
            await cluster.trust(held.certificate.authorities)
            return held.certificate
        made = renewed(name, now(), held.certificate if held else None)
        # Trusted before it is used: a replica that reads it serves with it at once.
        await cluster.trust(made.authorities)
        if await cluster.put_certificate(made, held):
            log.info("made a certificate for %s", name)
    msg = f"no certificate for {name} in {_TRIES} tries: others change it all the time"
    raise ClusterError(msg)


async def spread(cluster: Cluster, own: str) -> None:
    """Copy what nodes join with from the mesh's own namespace to every one that asks for sidecars.

    One that does not take it (a quota, a ConfigMap that somebody made immutable) does not keep the others
    from it. Raises ``ClusterError`` at the end; does nothing while auth has published nothing yet.
    """
    wanted = await cluster.joining(own)
    if wanted is None:
        return
    failures = []
    for namespace in await cluster.namespaces():
        try:
            await _give(cluster, namespace, wanted)
        except ClusterError as error:
            failures.append(str(error))
    if failures:
        raise ClusterError("; ".join(failures))


async def _give(cluster: Cluster, namespace: str, wanted: dict[str, str]) -> None:
    found = await cluster.joining(namespace)
    if found != wanted:
        await cluster.put_joining(namespace, wanted, new=found is None)
        log.info("%s can join now", namespace)


async def keep(doing: Callable[[], Awaitable[object]], look: float = LOOK) -> None:
    """Do something again and again, for ever; failures are told once in a row."""
    said = ""
    while True:
        try:
            await doing()
            said = ""
        except ClusterError as error:
            if str(error) != said:
                said = str(error)
                log.error("%s: trying on", said)  # noqa: TRY400  the line says it all
        await asyncio.sleep(look)
