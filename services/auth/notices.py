"""What PostgreSQL tells of other auths' changes at once (LISTEN/NOTIFY), so that nobody waits for a look.

A notice hurries a look and is nothing more: what is in the database counts, and it is looked at twice a
second whether there are notices or not (``server``). So one may be lost, come twice, or be somebody's lie.
The connection is of its own and belongs to one event loop; where it is cut, another one is made.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

log = logging.getLogger("mesh.auth")

CHANNEL: Final = "sealmesh"
#: Of every connection, where its URL says nothing else. A machine that is gone without a word ends none, and
#: who waits for its answer would wait for as long as TCP does: a quarter of an hour, or two hours.
CONNECTION: Final[Mapping[str, str | int]] = MappingProxyType(
    {
        "connect_timeout": 5,
        "fallback_application_name": "sealmesh",
        "keepalives_idle": 5,
        "keepalives_interval": 5,
        "keepalives_count": 2,
        "tcp_user_timeout": 15_000,
    }
)
#: Without a notice for so long it is asked whether the connection still is one.
SILENCE_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 5.0
AGAIN_SECONDS: Final = 1.0


async def listen(url: str, told: Callable[[], None]) -> None:
    """Call ``told`` whenever an auth may have changed something, for ever."""
    failing = False
    while True:
        try:
            connection = await _connected(url)
            async with connection:
                if failing:
                    log.info("notices of other auths' changes come again")
                failing = False
                await _follow(connection, told)
        except (psycopg.Error, OSError, TimeoutError) as error:
            if not failing:
                why = str(error).partition("\n")[0] or "no answer"
                log.warning("no notices of other auths' changes, looking twice a second: %s", why)
            failing = True
        await asyncio.sleep(AGAIN_SECONDS)


def conninfo(url: str) -> str:
    """Give what to connect with: what the URL says, and of the rest what auth needs."""
    given = conninfo_to_dict(url)
    return make_conninfo(url, **{name: value for name, value in CONNECTION.items() if name not in given})


async def _connected(url: str) -> psycopg.AsyncConnection:
    return await psycopg.AsyncConnection.connect(conninfo(url), autocommit=True)


async def _follow(connection: psycopg.AsyncConnection, told: Callable[[], None]) -> None:
    await connection.execute(f"LISTEN {CHANNEL}")
    while True:
        # What came before LISTEN, or with the answer to the question below, has told nobody.
        told()
        async for _ in connection.notifies(timeout=SILENCE_SECONDS):
            told()
        async with asyncio.timeout(ANSWER_SECONDS):
            await connection.execute("SELECT 1")
