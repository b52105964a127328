"""The process of auth: options in, signals heard, addresses told.

Ends with status 0 on SIGTERM and SIGINT, after the calls in progress. If it cannot start it says why in one
line and ends with status 1 for an address that it cannot have, 2 for bad arguments, 5 for the data directory.
"""

import asyncio
import logging
import signal
import ssl
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from mesh.core.chain import Limits
from mesh.core.names import AUTH
from mesh.descriptors import allow_many
from mesh.telemetry import logs, names
from mesh.telemetry.backends import Backend, watched
from mesh.telemetry.sdk import configured
from services.auth import failpoints
from services.auth.authority import Addresses, Authority, Lives
from services.auth.ca import CA_LIFE_MS
from services.auth.clock import Clock
from services.auth.directory import DataDirectory, publish_addresses, withdraw_addresses
from services.auth.epochs import Schedule
from services.auth.errors import AuthError, InvalidError, ListenError
from services.auth.server import AuthServer, OwnMembership
from services.auth.succession import Succession
from services.auth.vouching import Vouching, join_key
from services.auth.worker import Worker
from services.probe.answering import answering

log = logging.getLogger("mesh.auth")

#: Exit statuses, as those of the command.
FAILED, DATA = 1, 5
#: Segments of an audit log: as one is begun, an eighth of what is kept goes.
SEGMENTS: Final = 8
_ANYWHERE: Final = frozenset({"0.0.0.0", "[::]", "::", "*", ""})  # noqa: S104  compared with, not bound to


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path), help="The directory of mesh init.")
@click.option("--join-listen", default="127.0.0.1:7700", show_default=True, help="Where nodes join.")
@click.option("--listen", default="127.0.0.1:7701", show_default=True, help="Where sealed calls are taken.")
@click.option(
    "--gatekeeper",
    default="127.0.0.1:7702",
    show_default=True,
    help="Where gatekeeper is; all of several, with commas between.",
)
@click.option("--auths", help="Where sealed calls go to, of all auths, if there are several.")
@click.option("--advertise", help="Host that nodes are told to reach auth at, if not the one listened on.")
@click.option("--svid-seconds", default=3600, show_default=True, type=click.IntRange(2))
@click.option("--epoch-seconds", default=3600, show_default=True, type=click.IntRange(2))
@click.option("--grace-seconds", default=300, show_default=True, type=click.IntRange(1))
@click.option(
    "--kubernetes",
    type=click.Path(path_type=Path),
    help="Let pods join that Kubernetes vouches for, by this file.",
)
@click.option(
    "--audit-megabytes",
    default=64,
    show_default=True,
    type=click.IntRange(1, 1_000_000),
    help="Room for each of the two audit logs.",
)
@click.option(
    "--probe",
    type=click.Path(path_type=Path),
    help="Socket at which python -m services.probe asks how it is.  [default: none]",
)
@click.option("--ca-seconds", default=CA_LIFE_MS // 1000, show_default=True, type=click.IntRange(12))
def main(
    data: Path,
    join_listen: str,
    listen: str,
    gatekeeper: str,
    advertise: str | None,
    svid_seconds: int,
    epoch_seconds: int,
    grace_seconds: int,
    *,
    auths: str | None,
    audit_megabytes: int,
    kubernetes: Path | None,
    probe: Path | None,
    ca_seconds: int,
) -> None:
    """Serve the trust domain of a data directory: identities, keys, and the policy of record."""
    allow_many()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    audit = Limits(segment_bytes=audit_megabytes * 1_000_000 // SEGMENTS, segments=SEGMENTS)
    schedule = Schedule(epoch_seconds * 1000, grace_seconds * 1000)
    lives = Lives(svid_seconds * 1000, schedule, ca_seconds * 1000)
    try:
        Succession(lives.ca_ms, lives.svid_ms).check()
    except InvalidError as error:
        raise click.UsageError(str(error)) from None
    try:
        logs.set_up()
        hosts = _advertised(join_listen, advertise), _advertised(listen, advertise)
        with configured(AUTH.text) as telemetry:
            at, others = (join_listen, listen), (auths, gatekeeper)
            asyncio.run(_run(data, lives, audit, at, hosts, others, kubernetes, telemetry, probe=probe))
    except (AuthError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  for whoever started this
        sys.exit(DATA if isinstance(error, AuthError) and not isinstance(error, ListenError) else FAILED)


async def _run(
    data: Path,
    lives: Lives,
    audit: Limits,
    listen: tuple[str, str],
    hosts: tuple[str, str],
    others: tuple[str | None, str],
    kubernetes: Path | None,
    telemetry: Backend,
    *,
    probe: Path | None,
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with answering(probe) as probed:
        with DataDirectory(data, audit) as directory, Worker() as worker:
            clock = Clock(directory.store.wall)
            failpoints.arm(data)
            withdraw_addresses(data)
            authority = await worker.do(Authority.open, directory, lives, clock)
            own = await worker.do(OwnMembership, authority, worker, clock)
            watched(own.membership, telemetry).gauges.add(
                names.SLICE_VERSION, lambda: authority.policy_of_record.version
            )
            vouched = await _vouched(kubernetes, directory, authority, worker) if kubernetes else None
            server = AuthServer(authority, worker, own, *listen, vouched.vouching if vouched else None)
            addresses = {
                "join": f"{hosts[0]}:{server.join_port}",
                "auth": f"{hosts[1]}:{server.port}",
                "gatekeeper": others[1],
            }
            authority.addresses = Addresses(others[0] or addresses["auth"], others[1])
            try:
                await server.start()
                publish_addresses(data, addresses)
                log.info("auth of %s is ready: join at %s", authority.domain, addresses["join"])
                probed.missing = own.missing
                await _serve(server, stop, vouched)
            finally:
                withdraw_addresses(data)
                await server.stop()
                await own.reporter.close()
                await worker.do(authority.close)


@dataclass(frozen=True, slots=True)
class _Vouched:
    """How pods join: what vouches for them, and the keeping of what they need for it."""

    vouching: Vouching
    keep: Callable[[], Coroutine[Any, Any, None]]


async def _vouched(path: Path, directory: DataDirectory, authority: Authority, worker: Worker) -> _Vouched:
    from services.auth.kubernetes import Kubernetes, Settings  # noqa: PLC0415  in an extra

    settings = Settings.read(path)
    key = await worker.do(authority.following.alone, partial(join_key, directory))
    kubernetes = Kubernetes(settings)
    vouching = Vouching(
        authority.admission, worker, key, kubernetes, settings.rules, authority.revoking.is_banned
    )

    async def joining() -> dict[str, str]:
        trusted = "".join(map(ssl.DER_cert_to_PEM_cert, await worker.do(authority.trust_bundle)))
        return {"join-key": key.text, "trust-domain": authority.domain.text, "trust-bundle.pem": trusted}

    return _Vouched(vouching, partial(kubernetes.keep, joining))


async def _serve(server: AuthServer, stop: asyncio.Event, vouched: _Vouched | None) -> None:
    async with asyncio.TaskGroup() as tasks:
        publishing = tasks.create_task(vouched.keep()) if vouched else None
        await server.keep_until(stop)
        if publishing is not None:
            publishing.cancel()


def _advertised(listen: str, advertise: str | None) -> str:
    host = advertise or listen.rpartition(":")[0]
    if host in _ANYWHERE:
        raise ListenError(f"nodes cannot be told to go to {listen}: name a host with --advertise")
    return host
