"""Setting the stage: a trust domain in a temporary directory, processes, nodes; and taking all of it down."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from examples.shop import SHOP
from examples.shop.demo.attack import TIMEOUT
from examples.shop.demo.processes import free_ports, running, while_they_run
from examples.shop.demo.report import Report
from examples.shop.demo.stage import LOCAL, Stage, embedded, new_token, settled
from mesh.cli.data import ADDRESSES, DataDirectory
from mesh.cli.operator import Operator, operator
from mesh.cli.policy_file import read_policy
from mesh.core.names import TrustDomain
from mesh.telemetry.backends import Backend
from mesh.v1 import auth_pb2
from services.auth.founding import found
from services.lua_host.inspection import jail_lacks

DOMAIN = "shop.example"
_COMMAND = "examples.shop.demo.command"
_SCRIPTS = ("pricing", "gremlin")
_NODE = SHOP / "node"
_IMPATIENT = tuple((f"grpc.{which}_reconnect_backoff_ms", 100) for which in ("initial", "min", "max"))


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports that are chosen beforehand, because two parties have to know them."""

    tap: int
    frontend: int
    inventory: int
    mesh: int


@asynccontextmanager
async def stage(report: Report, directory: Path, telemetry: Backend) -> AsyncIterator[Stage]:
    """Set all of it up in an empty directory, and take it down at the end of the block."""
    ports = Ports(*free_ports(4))
    data = DataDirectory(directory / "data")
    async with AsyncExitStack() as stack:
        with report.step(f"trust domain {DOMAIN}; auth and gatekeeper, a process each"):
            found(data.path, TrustDomain(DOMAIN), time.time_ns() // 1_000_000)
            up = running(
                "mesh up",
                directory / "up.log",
                [_COMMAND, "up", "--data", str(data.path), "--port-base", "0"],
            )
            mesh_up = await stack.enter_async_context(up)
            processes = [mesh_up]
            await mesh_up.until((data.path / ADDRESSES).exists, "publish its addresses")
            by_operator = await stack.enter_async_context(operator(data))
            await _apply(by_operator)
        auth_at = data.addresses().join
        language, inventory = _inventory(ports.inventory)
        with report.step(f"frontend (Python) and inventory ({language}), each behind a sidecar, started"):
            front = ["-m", "examples.shop.frontend", "--listen", f"{LOCAL}:{ports.frontend}"]
            for service, port, outbound, app in (
                ("frontend", ports.frontend, ports.mesh, [sys.executable, *front]),
                ("inventory", ports.inventory, 0, inventory),
            ):
                arguments = [
                    *(_COMMAND, "run", "--service", service, "--auth", auth_at, "--token-file", "-"),
                    *("--app-port", str(port), "--outbound-port", str(outbound)),
                    *("--run-dir", str(directory / service), "--", *app),
                ]
                token = await new_token(by_operator, service)
                log = directory / f"{service}.log"
                beside = running(f"mesh run {service}", log, arguments, token)
                processes.append(await stack.enter_async_context(beside))
        has_jail = not (lacking := await jail_lacks())
        if has_jail:
            with report.step("pricing and gremlin (Lua), each in a jail of its own, started"):
                arguments = [*(_COMMAND, "lua", "run", "--auth", auth_at, "--token-file", "-")]
                arguments += ["-I", str(SHOP.parents[1]), *(str(SHOP / name) for name in _SCRIPTS)]
                tokens = [await new_token(by_operator, name) for name in _SCRIPTS]
                hosted = running("mesh lua run", directory / "lua.log", arguments, "\n".join(tokens))
                processes.append(await stack.enter_async_context(hosted))
        else:
            report.note(f"no services in Lua, and no attacks by their scripts: {lacking}")
        with report.step("orders, payments and mallory, embedded in this process, joined"):
            nodes = await stack.enter_async_context(embedded(by_operator, auth_at, ports.tap, telemetry))
        customer = grpc.aio.insecure_channel(f"{LOCAL}:{ports.frontend}", _IMPATIENT)
        shown = Stage(
            operator=by_operator,
            auth_at=auth_at,
            orders=nodes.orders,
            payments=nodes.payments,
            mallory=nodes.mallory,
            tap=nodes.tap,
            books=nodes.books,
            frontend=await stack.enter_async_context(customer),
            frontend_at=f"{LOCAL}:{ports.frontend}",
            orders_socket=f"unix:{directory / 'frontend' / 'orders.sock'}",
            mesh_port=f"{LOCAL}:{ports.mesh}",
            has_jail=has_jail,
            lua_log=directory / "lua.log",
        )
        shown.watch(nodes.orders)
        shown.watch(nodes.payments)
        with report.step("every service has found those that it may call"):
            await while_they_run(processes, settled(shown))
        yield shown


@asynccontextmanager
async def temporary_directory() -> AsyncIterator[Path]:
    """Give a directory, private and with a name short enough for sockets in it, and remove it at the end."""
    made = Path(tempfile.mkdtemp(prefix="mesh-demo-"))
    try:
        yield made
    finally:
        shutil.rmtree(made)


async def _apply(by_operator: Operator) -> None:
    document = read_policy(str(SHOP / "policy.yaml"))
    await by_operator.auth.ApplyPolicy(auth_pb2.ApplyPolicyRequest(document=document), timeout=TIMEOUT)


def _inventory(port: int) -> tuple[str, list[str]]:
    """Say in which language inventory is, and how to start it: Node's if it is there, else its twin."""
    listen = ["--listen", f"{LOCAL}:{port}"]
    installed = _NODE / "node_modules" / "@grpc" / "grpc-js" / "package.json"
    node = shutil.which("node")
    if node is None:
        return "Python: there is no Node.js here", [sys.executable, "-m", "examples.shop.inventory", *listen]
    if not installed.exists():
        why = "Python: @grpc/grpc-js is not installed, see examples/shop/README.md"
        return why, [sys.executable, "-m", "examples.shop.inventory", *listen]
    version = json.loads(installed.read_bytes())["version"]
    return f"Node.js, @grpc/grpc-js {version}", [node, str(_NODE / "inventory.js"), *listen]
