"""``python -m services.gatekeeper``: joins the mesh, then serves until it is told to end.

Auth need not be there yet: joining waits for it, and so does the policy. SIGTERM and SIGINT drain: watching
nodes are sent away to find the next gatekeeper, questions in progress are answered. Exit status is 0 after a
drain, 2 for bad arguments, 3 if auth refuses, 1 for anything else.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

# gRPC reads this when it is loaded. What it says by itself on stderr, gatekeeper says in a line of its own.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from mesh.core.builtin import SECTIONS
from mesh.core.document import MAX_DOCUMENT
from mesh.core.join import JoinToken
from mesh.core.matcher import Matcher
from mesh.core.names import GATEKEEPER
from mesh.core.receiver import Peer
from mesh.descriptors import allow_many
from mesh.enrol import Enrolment, JoinError, Vouched, join
from mesh.reports import Reporter
from mesh.rpc.channel import MeshChannel
from mesh.slices import HEARTBEAT
from mesh.telemetry import logs, names
from mesh.telemetry.backends import AMBIENT, Backend, watched
from mesh.telemetry.sdk import configured
from mesh.v1 import audit_pb2_grpc
from services.gatekeeper.confirmed import Confirmed
from services.gatekeeper.decisions import Ledger
from services.gatekeeper.denials import Forwarder
from services.gatekeeper.ext_authz import ExtAuthz, listener
from services.gatekeeper.judging import Judging
from services.gatekeeper.policy_source import PolicySource
from services.gatekeeper.revocations import Revocations
from services.gatekeeper.service import serving
from services.gatekeeper.signed import VersionedPolicy
from services.gatekeeper.watchers import Watchers
from services.probe.answering import Probe, answering

log = logging.getLogger("mesh.gatekeeper")

#: Seconds that a drain gives to questions in progress.
DRAIN_SECONDS: Final = 2.0
#: The largest policy, and what a message adds to its document.
MAX_RECEIVE: Final = MAX_DOCUMENT + 1024
FAILED, REFUSED = 1, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; give the exit status."""
    options = _parser().parse_args(arguments)
    allow_many()
    try:
        logs.set_up()
        token = _read_token(options.token_file)
        with configured(GATEKEEPER.text) as telemetry:
            asyncio.run(_run(token, options, telemetry))
    except JoinError as error:
        return _say(error, REFUSED)
    except (OSError, ValueError) as error:
        return _say(error, FAILED)
    return 0


async def serve(
    enrolment: Enrolment,
    listen: str,
    lease_ms: int,
    max_stale_ms: int,
    decisions: Path | None = None,
    decisions_days: float = 7,
    ext_authz: str | None = None,
    telemetry: Backend = AMBIENT,
    *,
    probe: Probe | None = None,
) -> None:
    """Serve for as long as this runs; drain when it is cancelled.

    ``listen`` is where nodes call, ``ext_authz`` where proxies ask, each as ``host:port``.
    Raises ``JoinError`` if the enrolment is not gatekeeper's, and ``OSError`` if it cannot listen.
    """
    membership = enrolment.membership
    if membership.name != GATEKEEPER:
        msg = f"the token is for {membership.name}: make one with mesh token create {GATEKEEPER}"
        raise JoinError(msg)
    membership.authorize = Matcher(SECTIONS[GATEKEEPER]).permit
    told = watched(membership, telemetry)
    enrolment.tracing = told.tracing
    confirmed = Confirmed(membership.clock.now_ms)
    watchers = Watchers(lease_ms, max_stale_ms, lambda: time.monotonic_ns() // 1_000_000, confirmed)
    channel = MeshChannel(membership, enrolment.auth, MAX_RECEIVE)

    def take(policy: VersionedPolicy) -> None:
        with told.tracing.span(names.PUSH, {names.POLICY_VERSION: policy.version}):
            watchers.take(policy)

    own = Peer(membership.name, membership.instance)
    audit = audit_pb2_grpc.AuditServiceStub(channel)
    forwarder = Forwarder(own, audit)
    reporter = Reporter(membership, forwarder.send)
    ledger = Ledger(membership.clock.now_ms, decisions, decisions_days)
    judging = Judging(watchers.now, membership.clock.now_ms, reporter, ledger, lambda: watchers.banned)
    server = serving(watchers, membership, listen, forwarder, reporter, judging, ledger, audit)
    revocations = Revocations(membership, watchers, server)
    source = PolicySource(membership, channel, take, confirmed, revocations.take, enrolment.auth.forget)
    told.gauges.add(names.SLICE_VERSION, lambda: source.in_force.version if source.in_force else None)
    answers = ExtAuthz(membership, watchers.answering, judging)
    proxies = listener(membership, ext_authz, answers) if ext_authz else None
    if probe is not None:
        probe.missing = watchers.missing
    await server.start()
    log.info("serving on port %d as instance %s", server.port, membership.instance)
    if proxies is not None:
        await proxies.start()
        log.info("answering proxies on port %d", proxies.port)
    try:
        async with asyncio.TaskGroup() as tasks:
            kinds = (enrolment.keep(), source.run(), watchers.keep_time())
            for kept in (*kinds, forwarder.run(), reporter.keep(), ledger.run()):
                tasks.create_task(kept)
    finally:
        watchers.drain()
        stopping = [server.stop(DRAIN_SECONDS), *([proxies.stop(DRAIN_SECONDS)] if proxies else [])]
        await asyncio.gather(*stopping)
        await ledger.close()


async def _run(token: JoinToken | Vouched, options: argparse.Namespace, telemetry: Backend) -> None:
    task = asyncio.current_task()
    if task is None:
        raise AssertionError
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        async with answering(options.probe) as probe:
            probe.missing = lambda: f"it waits to join at {options.auth}"
            await _joined(await join(token, options.auth), options, telemetry, probe)
    except asyncio.CancelledError:
        log.info("drained")


async def _joined(
    enrolment: Enrolment, options: argparse.Namespace, telemetry: Backend, probe: Probe
) -> None:
    try:
        await serve(
            enrolment,
            options.listen,
            int(options.lease_seconds * 1000),
            int(options.max_stale_seconds * 1000),
            options.decisions,
            options.decisions_days,
            options.ext_authz,
            telemetry,
            probe=probe,
        )
    finally:
        await enrolment.close()


def _read_token(path: str | None) -> JoinToken | Vouched:
    if path is None:
        vouched = Vouched.named(os.environ)
        if vouched is None:
            msg = f"no join token: give --token-file, made with mesh token create {GATEKEEPER}"
            raise ValueError(msg)
        return vouched
    if path == "-":
        return JoinToken.parse(sys.stdin.readline())
    try:
        return JoinToken.parse(Path(path).read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read the token from {path}: {getattr(error, 'strerror', None) or error}"
        raise ValueError(msg) from None


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 86400:  # noqa: PLR2004  a day
        raise argparse.ArgumentTypeError("not above 0 and up to a day")
    return seconds


def _lease(text: str) -> float:
    seconds = _seconds(text)
    if seconds < 2 * HEARTBEAT:
        raise argparse.ArgumentTypeError(f"under {2 * HEARTBEAT:.0f}: nodes are heard every {HEARTBEAT:.0f}")
    return seconds


def _days(text: str) -> float:
    days = float(text)
    if not 0 < days <= 366:  # noqa: PLR2004  a year
        raise argparse.ArgumentTypeError("not above 0 and up to 366")
    return days


def _say(error: Exception, status: int) -> int:
    print(f"error: {error}", file=sys.stderr)  # noqa: T201  for whoever started this
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.gatekeeper", description=__doc__)
    parser.add_argument("--auth", required=True, metavar="HOST:PORT", help="auth's join port")
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help=f"a join token for {GATEKEEPER}; - for standard input; not needed where Kubernetes vouches",
    )
    parser.add_argument("--listen", default="127.0.0.1:7702", metavar="HOST:PORT", help="for sealed calls")
    parser.add_argument("--ext-authz", metavar="HOST:PORT", help="for proxies that ask as envoy does")
    parser.add_argument(
        "--lease-seconds", type=_lease, default=15.0, help="how long a silent node is believed in"
    )
    parser.add_argument(
        "--max-stale-seconds",
        type=_seconds,
        default=600.0,
        help="how long nodes go on after auth's last word",
    )
    parser.add_argument(
        "--decisions", type=Path, metavar="FILE", help="where recorded decisions are kept; memory without"
    )
    parser.add_argument(
        "--decisions-days", type=_days, default=7.0, metavar="DAYS", help="for how long, up to a year"
    )
    parser.add_argument(
        "--probe", type=Path, metavar="SOCKET", help="where python -m services.probe asks how it is"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
