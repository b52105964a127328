"""The policy of record, as an operator's command asks auth for it."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.cli.data import DataDirectory
from mesh.cli.operator import PATIENCE, Operator, asked
from mesh.core.policy import Policy
from mesh.v1 import auth_pb2


@dataclass(frozen=True, slots=True)
class Record:
    """A version of the policy of record."""

    version: int
    document: bytes

    @property
    def policy(self) -> Policy:
        """The policy; auth has checked that it is one."""
        return Policy.parse(self.document or b'{"services": {}}')


async def of_record(operator: Operator) -> Record:
    """Ask for the policy of record."""
    found = await operator.auth.GetPolicy(auth_pb2.GetPolicyRequest(), timeout=6 * PATIENCE)
    return Record(found.policy.version, found.policy.document)


def fetched(data: DataDirectory) -> Record:
    """Join as the operator and ask for the policy of record."""
    return asked(data, of_record)
