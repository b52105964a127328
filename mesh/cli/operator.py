"""The operator's calls: join with the operator's credential, then sealed calls like anybody's.

Every command is an instance of ``mesh.operator`` of its own, and keeps nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from mesh import enrol
from mesh.cli.data import DataDirectory
from mesh.cli.errors import CliError, Exit
from mesh.core.document import MAX_DOCUMENT
from mesh.core.names import AUTH, GATEKEEPER
from mesh.enrol import Vouched
from mesh.rpc.channel import MeshChannel
from mesh.rpc.targets import FixedTarget
from mesh.v1 import (
    audit_pb2_grpc,
    auth_pb2_grpc,
    decisions_pb2_grpc,
    gatekeeper_pb2_grpc,
    keys_pb2_grpc,
    revocation_pb2_grpc,
    tap_pb2_grpc,
)

_T = TypeVar("_T")

#: Seconds to wait for auth to take a join, and for each answer.
PATIENCE: Final = 5.0
#: The largest policy, or list of nodes.
MAX_RECEIVE: Final = MAX_DOCUMENT + 1024


@dataclass(frozen=True, slots=True)
class Operator:
    """Stubs of what an operator may call."""

    auth: auth_pb2_grpc.OperatorServiceAsyncStub
    gatekeeper: gatekeeper_pb2_grpc.GatekeeperServiceAsyncStub
    audit: audit_pb2_grpc.AuditServiceAsyncStub
    decisions: decisions_pb2_grpc.DecisionServiceAsyncStub
    keys: keys_pb2_grpc.KeyServiceAsyncStub
    revocation: revocation_pb2_grpc.RevocationServiceAsyncStub
    taps: tap_pb2_grpc.TapServiceAsyncStub


@asynccontextmanager
async def operator(data: DataDirectory, patience: float = PATIENCE) -> AsyncIterator[Operator]:
    """Join the mesh that runs on a data directory, and leave it at the end of the block.

    Raises ``CliError`` if the directory or the mesh is not there, or auth refuses the credential.
    """
    token, addresses = data.credential(), data.addresses()
    try:
        async with asyncio.timeout(patience):
            enrolment = await enrol.join(token, addresses.join, (addresses.auth, addresses.gatekeeper))
    except TimeoutError:
        start = f"start the mesh with mesh up --data {data.path}"
        do = "see that kubectl port-forward runs" if isinstance(token, Vouched) else start
        raise CliError(f"auth does not answer at {addresses.join}: {do}", Exit.UNREACHABLE) from None
    except enrol.JoinError as error:
        if isinstance(token, Vouched):
            raise
        raise CliError(
            f"auth at {addresses.join} does not take the operator's credential in {data.path}: "
            "is it of this very mesh, and did it not expire? mesh keys rotate operator and mesh restore make "
            "a new operator.json, which has to be copied anew",
            Exit.REFUSED,
        ) from error
    gatekeeper = FixedTarget(GATEKEEPER, enrolment.gatekeeper_address, enrolment.membership)
    # Logs, keys and backups are those of the auth of this very directory, where there are several.
    own = FixedTarget(AUTH, addresses.auth, enrolment.membership)
    to_own = MeshChannel(enrolment.membership, own, MAX_RECEIVE)
    to_auth = MeshChannel(enrolment.membership, enrolment.auth, MAX_RECEIVE)
    to_gatekeeper = MeshChannel(enrolment.membership, gatekeeper, MAX_RECEIVE)
    try:
        yield Operator(
            auth_pb2_grpc.OperatorServiceStub(to_auth),
            gatekeeper_pb2_grpc.GatekeeperServiceStub(to_gatekeeper),
            audit_pb2_grpc.AuditServiceStub(to_own),
            decisions_pb2_grpc.DecisionServiceStub(to_gatekeeper),
            keys_pb2_grpc.KeyServiceStub(to_own),
            revocation_pb2_grpc.RevocationServiceStub(to_auth),
            tap_pb2_grpc.TapServiceStub(to_gatekeeper),
        )
    finally:
        await gatekeeper.close()
        await own.close()
        await enrolment.close()


def asked(data: DataDirectory, ask: Callable[[Operator], Coroutine[Any, Any, _T]]) -> _T:
    """Do one thing as the operator, from a command."""

    async def session() -> _T:
        async with operator(data, PATIENCE) as connected:
            return await ask(connected)

    return asyncio.run(session())
