"""GatekeeperService: streams of slices, and answers to single questions.

Callers come verified, and with a permit for the method, by ``builtin.SECTIONS``; ListNodes is the operator's
by that alone. Nobody can ask on another's behalf: name and instance are those of the sealed call.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from typing import Any, Final, NoReturn
from urllib.parse import unquote

import grpc

from mesh.core.errors import Denied, Reason
from mesh.core.metadata import application_entries
from mesh.core.names import service_name
from mesh.reports import Denial, Reporter
from mesh.rpc.authorize import DEADLINE
from mesh.rpc.context import peer
from mesh.rpc.membership import Membership
from mesh.rpc.server import MeshServer
from mesh.rpc.status import mesh_outcome
from mesh.v1 import audit_pb2_grpc, decisions_pb2_grpc, gatekeeper_pb2, gatekeeper_pb2_grpc, tap_pb2_grpc
from services.gatekeeper.decisions import Decisions, Ledger
from services.gatekeeper.denials import Denials, Forwarder
from services.gatekeeper.directory import Node
from services.gatekeeper.judging import MAX_HEADERS, Judging
from services.gatekeeper.slices import Slicer
from services.gatekeeper.taps import TapServicer
from services.gatekeeper.watchers import Watcher, Watchers

#: For how many leases a stream may be silent before it is ended. The directory judges after one.
SILENT_LEASES: Final = 2
#: What is larger is refused before it is parsed: policies and slices are replies, questions are small.
MAX_REQUEST: Final = 64 * 1024
#: Thousands watch, and what they are sent is small: TLS then needs no room for records of 16 kB for each.
_SMALL: Final = (("grpc.tsi.max_frame_size", 2048),)


class Gatekeeper(gatekeeper_pb2_grpc.GatekeeperServiceServicer):
    """Answers nodes from what ``Watchers`` holds; others keep that supplied with time and policy."""

    def __init__(self, watchers: Watchers, reporter: Reporter, judging: Judging) -> None:
        """Take the watchers, who keeps denials, and who judges single calls."""
        self._watchers, self._reporter, self._judging = watchers, reporter, judging

    async def Watch(  # type: ignore[override]  # noqa: N802  writes, as grpc.aio lets it, so its end is its own
        self, requests: AsyncIterator[gatekeeper_pb2.WatchRequest], context: Any
    ) -> None:
        """Register the caller for as long as it is heard, and send it what it is owed."""
        watcher = self._watchers.open(peer(context))
        listening = asyncio.create_task(self._listen(watcher, requests, context))
        try:
            while (response := await watcher.next()) is not None:
                await context.write(response)
            if listening.done():
                listening.result()
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except TimeoutError:
            await context.abort(grpc.StatusCode.ABORTED, "no heartbeat came: send one every few seconds")
        finally:
            self._watchers.close(watcher, clean=_ended_well(listening))
            listening.cancel()
            await asyncio.wait((listening,))

    async def _listen(
        self, watcher: Watcher, requests: AsyncIterator[gatekeeper_pb2.WatchRequest], context: Any
    ) -> None:
        # Returns at the clean end of the requests; however it ends, the watcher ends with it.
        patience = SILENT_LEASES * self._watchers.lease_ms / 1000
        first = True
        try:
            host = seen_host(context.peer())
            while True:
                async with asyncio.timeout(patience):
                    beat = await anext(requests, None)
                if beat is None:
                    return
                self._watchers.heard(watcher, host, beat, first=first)
                first = False
        finally:
            watcher.end()

    async def Authorize(  # noqa: N802
        self, request: gatekeeper_pb2.AuthorizeRequest, context: Any
    ) -> gatekeeper_pb2.AuthorizeResponse:
        """Judge a call to the caller. What is no name or no method is denied like any other.

        Whatever keeps it from answering while the asker waits ends in UNAVAILABLE, which permits nothing.
        """
        try:
            async with asyncio.timeout(DEADLINE):
                return await self._authorize(request, context)
        except TimeoutError:
            return await _fail(context, Reason.NOT_READY, "gatekeeper took too long to answer")

    async def _authorize(
        self, request: gatekeeper_pb2.AuthorizeRequest, context: Any
    ) -> gatekeeper_pb2.AuthorizeResponse:
        if len(request.headers) > MAX_HEADERS:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"{len(request.headers)} headers are more than a call can have: send up to {MAX_HEADERS}",
            )
        slicer = await self._slicer(context)
        entries = application_entries((header.key, header.value) for header in request.headers)
        try:
            permit = await self._judging.permit(
                slicer, peer(context), request.source, request.method, entries
            )
        except Denied as denied:
            return gatekeeper_pb2.AuthorizeResponse(
                permitted=False, rule=denied.rule or "", policy_version=slicer.version
            )
        return gatekeeper_pb2.AuthorizeResponse(
            permitted=True, rule=permit.rule, policy_version=slicer.version
        )

    async def Resolve(  # noqa: N802
        self, request: gatekeeper_pb2.ResolveRequest, context: Any
    ) -> gatekeeper_pb2.ResolveResponse:
        """Give the endpoints of a service that the caller may call.

        The only thing asked of a name is whether it is among those that the caller may know: the work is the
        same for one that is forbidden and one that does not exist, and so is the answer.
        """
        slicer, asking = await self._slicer(context), peer(context).service
        try:
            name = service_name(request.service)
        except ValueError:
            await self._unavailable(context)
        found = slicer.resolve(asking, name)
        if found is None:
            await self._unavailable(context)
        return gatekeeper_pb2.ResolveResponse(destination=found)

    async def ListNodes(  # noqa: N802
        self, _request: gatekeeper_pb2.ListNodesRequest, _context: Any
    ) -> gatekeeper_pb2.ListNodesResponse:
        """List what is registered; before the first policy, too, for that is when an operator looks."""
        now_ms, slicer = self._watchers.now(), self._watchers.slicer
        return gatekeeper_pb2.ListNodesResponse(
            nodes=[_info(node, now_ms) for node in self._watchers.directory.nodes()],
            policy_version=slicer.version if slicer else 0,
        )

    async def _unavailable(self, context: Any) -> NoReturn:
        # Without the name, and without waiting for the log: the answer takes as long for every name.
        own, asking = self._reporter.own, peer(context)
        resolve = "/mesh.v1.GatekeeperService/Resolve"
        instance = str(asking.instance)
        self._reporter.note(Denial(own, asking.service.text, instance, resolve, "", "name unavailable"))
        await _fail(context, Reason.NAME_UNAVAILABLE)

    async def _slicer(self, context: Any) -> Slicer:
        slicer = self._watchers.answering()
        if slicer is None:
            missing = "word from auth on its policy" if self._watchers.slicer else "policy yet"
            await _fail(context, Reason.NOT_READY, f"gatekeeper has no {missing}")
        return slicer


def serving(
    watchers: Watchers,
    membership: Membership,
    address: str,
    forwarder: Forwarder,
    reporter: Reporter,
    judging: Judging,
    ledger: Ledger,
    audit: audit_pb2_grpc.AuditServiceAsyncStub,
) -> MeshServer:
    """Give gatekeeper's server, to be started; raise ``OSError`` if it cannot listen at ``host:port``."""
    server = MeshServer(membership, address, max_receive=MAX_REQUEST, options=_SMALL)
    gatekeeper_pb2_grpc.add_GatekeeperServiceServicer_to_server(
        Gatekeeper(watchers, reporter, judging), server
    )
    audit_pb2_grpc.add_DenialServiceServicer_to_server(Denials(forwarder), server)
    decisions_pb2_grpc.add_DecisionServiceServicer_to_server(Decisions(ledger), server)
    tap_pb2_grpc.add_TapServiceServicer_to_server(
        TapServicer(watchers.taps, watchers.instances, audit), server
    )
    return server


def seen_host(transport_peer: str) -> str:
    """Read the IP from gRPC's name for a peer, such as ``ipv6:%5B::1%5D:4711``.

    An IPv4 address in IPv6 clothes (RFC 4291 section 2.5.5.2) comes out as IPv4. Raises ``ValueError`` for a
    peer that is not at an IP address.
    """
    host = unquote(transport_peer).partition(":")[2].rpartition(":")[0].strip("[]")
    found = ipaddress.ip_address(host)
    return str(getattr(found, "ipv4_mapped", None) or found)


def _ended_well(listening: asyncio.Task[None]) -> bool:
    return listening.done() and not listening.cancelled() and listening.exception() is None


def _info(node: Node, now_ms: int) -> gatekeeper_pb2.NodeInfo:
    return gatekeeper_pb2.NodeInfo(
        service=node.service.text,
        instance=node.instance.raw,
        address=node.endpoint,
        policy_version=node.policy_version,
        last_seen_ms=now_ms - node.last_seen_ms,
    )


async def _fail(context: Any, reason: Reason, detail: str = "") -> NoReturn:
    outcome = mesh_outcome(reason, detail)
    await context.abort(outcome.code, outcome.details, outcome.trailing)
    raise AssertionError  # pragma: no cover  abort raises
