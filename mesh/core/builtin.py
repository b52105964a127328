"""The rules about the mesh's own services. They are part of the code: no policy can widen or narrow them.

Every RPC of auth and gatekeeper that is sealed has its row here, by its full name; one without is denied.
``JoinService`` (protected by the join secret) and ``NodeService`` (by TLS alone) are outside the seal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from mesh.core.names import AUTH, GATEKEEPER, OPERATOR, ServiceName
from mesh.core.policy import Section

_ANYONE: Final = "*"

_ROWS: Final = {
    AUTH: {
        "node": (
            _ANYONE,
            (
                "/mesh.v1.AuthService/Renew",
                "/mesh.v1.AuthService/GetPairKeys",
                "/mesh.v1.SignerService/Sign",
                "/mesh.v1.SignerService/Verify",
            ),
        ),
        "gatekeeper": (
            GATEKEEPER.text,
            (
                "/mesh.v1.AuthService/WatchPolicy",
                "/mesh.v1.AuditService/Record",
                "/mesh.v1.AuditService/RecordTap",
            ),
        ),
        "operator": (
            OPERATOR.text,
            (
                "/mesh.v1.OperatorService/CreateToken",
                "/mesh.v1.OperatorService/ListTokens",
                "/mesh.v1.OperatorService/RevokeToken",
                "/mesh.v1.OperatorService/ApplyPolicy",
                "/mesh.v1.OperatorService/GetPolicy",
                "/mesh.v1.OperatorService/ListPolicies",
                "/mesh.v1.OperatorService/GetAuthStatus",
                "/mesh.v1.AuditService/Read",
                "/mesh.v1.KeyService/ListKeys",
                "/mesh.v1.KeyService/RotateKey",
                "/mesh.v1.KeyService/BackUp",
                "/mesh.v1.RevocationService/Revoke",
                "/mesh.v1.RevocationService/Ban",
                "/mesh.v1.RevocationService/Unban",
                "/mesh.v1.RevocationService/ListRevoked",
            ),
        ),
    },
    GATEKEEPER: {
        "node": (
            _ANYONE,
            (
                "/mesh.v1.GatekeeperService/Watch",
                "/mesh.v1.GatekeeperService/Authorize",
                "/mesh.v1.GatekeeperService/Resolve",
                "/mesh.v1.DenialService/Report",
                "/mesh.v1.DecisionService/RecordDecisions",
            ),
        ),
        "operator": (
            OPERATOR.text,
            (
                "/mesh.v1.GatekeeperService/ListNodes",
                "/mesh.v1.DecisionService/ListDecisions",
                "/mesh.v1.DecisionService/ListLatencies",
                "/mesh.v1.TapService/Tap",
            ),
        ),
    },
}


def _section(service: ServiceName) -> Section:
    # Through the same parser as everybody's rules, so that a slip in the table above cannot widen it.
    rules = [
        {"name": f"{service}/{name}", "principals": [principal], "paths": paths}
        for name, (principal, paths) in _ROWS[service].items()
    ]
    return Section.parse(json.dumps({"allow": rules}))


#: The rules of each of the mesh's own services that can be called. Nobody can call ``mesh.operator``.
SECTIONS: Final[Mapping[ServiceName, Section]] = MappingProxyType(
    {service: _section(service) for service in _ROWS}
)
