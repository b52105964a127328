"""GatekeeperService: streams of slices, and answers to single questions.

Callers come verified, and with a permit for the method, by ``builtin.SECTIONS``; ListNodes is the operator's
by that alone. Nobody can ask on another's behalf: name and instance are those of the sealed call.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, NoReturn
from urllib.parse import unquote

import grpc

from mesh.audits import Audits
from mesh.core.errors import Denied, Reason
from mesh.core.metadata import application_entries
from mesh.core.names import full_method, service_name
from mesh.core.receiver import Peer
from mesh.reports import Denial, Reporter
from mesh.rpc.connections import MAX_METADATA
from mesh.rpc.context import peer
from mesh.rpc.membership import Membership
from mesh.rpc.server import MeshServer
from mesh.rpc.status import mesh_outcome
from mesh.v1 import audit_pb2_grpc, decisions_pb2_grpc, gatekeeper_pb2, gatekeeper_pb2_grpc
from services.gatekeeper.decisions import Decisions, Ledger
from services.gatekeeper.denials import Denials, Forwarder
from services.gatekeeper.directory import Node
from services.gatekeeper.slices import Slicer, destination
from services.gatekeeper.watchers import Watcher, Watchers

log = logging.getLogger("mesh.gatekeeper")

#: For how many leases a stream may be silent before it is ended. The directory judges after one.
SILENT_LEASES: Final = 2
#: What is larger is refused before it is parsed: policies and slices are replies, questions are small.
MAX_REQUEST: Final = 64 * 1024
#: A call has no more entries than this: HTTP/2 counts 32 bytes for each beside its text (RFC 9113
#: section 6.5.2).
MAX_HEADERS: Final = MAX_METADATA // 32


class Gatekeeper(gatekeeper_pb2_grpc.GatekeeperServiceServicer):
    """Answers nodes from what ``Watchers`` holds; others keep that supplied with time and policy."""

    def __init__(
        self, watchers: Watchers, clock_ms: Callable[[], int], reporter: Reporter, ledger: Ledger
    ) -> None:
        """Take the watchers, the mesh's clock in Unix ms, and who keeps denials and decisions."""
        self._watchers, self._clock_ms, self._reporter, self._ledger = watchers, clock_ms, reporter, ledger
        self._audits = Audits(lambda: watchers.now() / 1000)

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
        """Judge a call to the caller. What is no name or no method is denied like any other."""
        if len(request.headers) > MAX_HEADERS:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"{len(request.headers)} headers are more than a call can have: send up to {MAX_HEADERS}",
            )
        slicer, asking = await self._slicer(context), peer(context).service
        entries = application_entries((header.key, header.value) for header in request.headers)
        try:
            permit = slicer.matcher(asking).permit(request.source, request.method, entries, self._clock_ms())
        except Denied as denied:
            self._ledger.note(asking, slicer, denied, entries)
            log.warning(
                "denied: source=%r method=%r destination=%s rule=%r",
                denied.source[:200],
                denied.method[:200],
                asking,
                denied.rule,
            )
            self._reporter.note(_denial(denied, peer(context)))
            await self._reporter.written()
            return gatekeeper_pb2.AuthorizeResponse(
                permitted=False, rule=denied.rule or "", policy_version=slicer.version
            )
        self._ledger.note(asking, slicer, permit, entries)
        if permit.audited is not None:
            self._audits.note(permit, slicer.version, str(asking))
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
        if not slicer.may_know(asking, name):
            await self._unavailable(context)
        return gatekeeper_pb2.ResolveResponse(
            destination=destination(name, self._watchers.directory.endpoints)
        )

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
        if self._watchers.slicer is None:
            await _fail(context, Reason.NOT_READY, "gatekeeper has no policy yet")
        return self._watchers.slicer


def serving(
    watchers: Watchers,
    membership: Membership,
    address: str,
    forwarder: Forwarder,
    reporter: Reporter,
    ledger: Ledger,
) -> MeshServer:
    """Give gatekeeper's server, to be started; raise ``OSError`` if it cannot listen at ``host:port``."""
    server = MeshServer(membership, address, max_receive=MAX_REQUEST)
    gatekeeper_pb2_grpc.add_GatekeeperServiceServicer_to_server(
        Gatekeeper(watchers, membership.clock.now_ms, reporter, ledger), server
    )
    audit_pb2_grpc.add_DenialServiceServicer_to_server(Denials(forwarder), server)
    decisions_pb2_grpc.add_DecisionServiceServicer_to_server(Decisions(ledger), server)
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


def _denial(denied: Denied, asking: Peer) -> Denial:
    # Whom it asks about is the asker's word, so there is no instance; what is no name or method is left out.
    try:
        source, method = service_name(denied.source).text, full_method(denied.method).text
    except ValueError:
        source = method = ""
    return Denial(asking, source, "", method, denied.rule or "", "denied")


async def _fail(context: Any, reason: Reason, detail: str = "") -> NoReturn:
    outcome = mesh_outcome(reason, detail)
    await context.abort(outcome.code, outcome.details, outcome.trailing)
    raise AssertionError  # pragma: no cover  abort raises
