"""The mesh's own rules: every RPC has a row, and each row says what the design says."""

import pytest

from mesh.core.builtin import SECTIONS
from mesh.core.errors import Denied
from mesh.core.matcher import Matcher
from mesh.core.names import AUTH, GATEKEEPER, OPERATOR, ServiceName
from mesh.v1 import (
    audit_pb2,
    auth_pb2,
    decisions_pb2,
    gatekeeper_pb2,
    keys_pb2,
    revocation_pb2,
    signer_pb2,
    tap_pb2,
)

ANYONE = ServiceName("orders")
CALLERS = {ANYONE, AUTH, GATEKEEPER, OPERATOR}
SEALED = {
    AUTH: (
        auth_pb2.DESCRIPTOR.services_by_name["AuthService"],
        auth_pb2.DESCRIPTOR.services_by_name["OperatorService"],
        audit_pb2.DESCRIPTOR.services_by_name["AuditService"],
        keys_pb2.DESCRIPTOR.services_by_name["KeyService"],
        revocation_pb2.DESCRIPTOR.services_by_name["RevocationService"],
        signer_pb2.DESCRIPTOR.services_by_name["SignerService"],
    ),
    GATEKEEPER: (
        gatekeeper_pb2.DESCRIPTOR.services_by_name["GatekeeperService"],
        audit_pb2.DESCRIPTOR.services_by_name["DenialService"],
        decisions_pb2.DESCRIPTOR.services_by_name["DecisionService"],
        tap_pb2.DESCRIPTOR.services_by_name["TapService"],
    ),
}
RPCS = [
    (destination, f"/{service.full_name}/{method.name}")
    for destination, served in SEALED.items()
    for service in served
    for method in service.methods
]
ONLY = {
    "/mesh.v1.AuthService/WatchPolicy": GATEKEEPER,
    "/mesh.v1.AuditService/Record": GATEKEEPER,
    "/mesh.v1.AuditService/Read": OPERATOR,
    "/mesh.v1.GatekeeperService/ListNodes": OPERATOR,
    "/mesh.v1.DecisionService/ListDecisions": OPERATOR,
    "/mesh.v1.DecisionService/ListLatencies": OPERATOR,
    "/mesh.v1.TapService/Tap": OPERATOR,
    "/mesh.v1.AuditService/RecordTap": GATEKEEPER,
}


def expected(method: str) -> set[ServiceName]:
    operators = ("OperatorService", "KeyService", "RevocationService")
    if method.split("/")[1].removeprefix("mesh.v1.") in operators:
        return {OPERATOR}
    return {ONLY[method]} if method in ONLY else CALLERS


@pytest.mark.parametrize(("destination", "method"), RPCS, ids=[method for _, method in RPCS])
def test_every_rpc_has_its_row(destination: ServiceName, method: str) -> None:
    """Each RPC may be called by those whom it is for, and by nobody else."""
    judge = Matcher(SECTIONS[destination])
    for caller in CALLERS:
        if caller in expected(method):
            assert judge.permit(caller.text, method, ()).rule.startswith(f"{destination}/")
        else:
            with pytest.raises(Denied):
                judge.permit(caller.text, method, ())


def test_no_row_without_an_rpc() -> None:
    """No row names a method that does not exist, and none has a wildcard for methods."""
    rows = {
        (destination, path)
        for destination, section in SECTIONS.items()
        for rule in section.allow
        for path in rule.paths
    }
    assert rows == set(RPCS)


def test_everything_else_is_denied() -> None:
    """What is outside the seal, on another port or unknown is not called this way."""
    for section in SECTIONS.values():
        for method in ("/mesh.v1.JoinService/Join", "/mesh.v1.NodeService/Hello", "/p.S/M"):
            for caller in CALLERS:
                with pytest.raises(Denied):
                    Matcher(section).permit(caller.text, method, ())


def test_rows_of_one_are_not_rows_of_the_other() -> None:
    """Auth serves nothing of gatekeeper's, nor gatekeeper of auth's."""
    for destination, method in RPCS:
        (other,) = set(SECTIONS) - {destination}
        with pytest.raises(Denied):
            Matcher(SECTIONS[other]).permit(OPERATOR.text, method, ())


def test_who_is_known_to_all() -> None:
    """Everybody may know of auth and gatekeeper, and nobody calls the operator."""
    assert set(SECTIONS) == {AUTH, GATEKEEPER}
    assert all(section.admits(caller) for section in SECTIONS.values() for caller in CALLERS)
