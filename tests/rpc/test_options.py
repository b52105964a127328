"""Options that gRPC does not know are ignored without a word, so each one that is set is looked up in it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from mesh.rpc import connections, lasting, server
from services.auth import server as auth
from services.gatekeeper import ext_authz
from sidecar import health, inbound, outbound

OPTIONS = {
    name
    for module in (connections, lasting, server, auth, ext_authz, health, inbound, outbound)
    for table in vars(module).values()
    if isinstance(table, tuple)
    for name, *_ in (entry for entry in table if isinstance(entry, tuple))
    if isinstance(name, str) and name.startswith("grpc.")
}


@pytest.fixture(scope="module")
def library() -> bytes:
    """Give gRPC itself."""
    found = importlib.import_module("grpc._cython.cygrpc").__file__
    assert found is not None
    return Path(found).read_bytes()


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_grpc_knows_the_option(library: bytes, option: str) -> None:
    """The name of an option stands in gRPC's own code."""
    assert option.encode() + b"\0" in library
