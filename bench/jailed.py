"""What a Lua service costs: beside the same handler in Python, and beside Lua in one's own process.

``python -m bench.jailed`` (``--json FILE``). One service calls two others in turns, one embedded in Python
and one in Lua; then again while fifty hostile services run on the same machine. What a worker takes to start
and to hold, and what a message of 64 KiB takes on its way through one, is measured without a mesh.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Final

from lupa import lua54

from bench.direct import CLIENT, SERVER, Variant, client
from bench.hostile import HOSTILE, Nobody
from bench.load import payload
from bench.meshed import CALLER, SCRIPTED, Domain, embedded, trust_domain
from bench.process import Process
from bench.report import Target, beside, block_of, number
from bench.rounds import Load, measure
from mesh.core.names import FullMethod
from services.lua_host.bundle import Bundle
from services.lua_host.rehearsal import rehearse
from services.lua_host.service import start_of
from services.lua_host.worker import Cell, Worker, ignore

PYTHON, LUA = "Python, embedded", "Lua, jailed"
ROUNDS: Final = 8
SPAWNS: Final = 10
BESIEGERS: Final = 50
MESSAGE: Final = 64 * 1024
#: Calls of 64 KiB in each of the rounds.
CALLS: Final = 20
ECHO: Final = Path(__file__).parent / "lua_echo"
_METHOD: Final = FullMethod("/bench.Echo/Echo")
#: What the worker does with a message, without the worker: decode, hand over, encode.
_IN_PROCESS: Final = """
local descriptors, sources = ..., {select(2, ...)}
local parts = setmetatable({}, {
  __index = function(parts, name)
    for index = 1, #sources, 2 do
      if sources[index] == name then
        parts[name] = load(sources[index + 1], name, "t")(parts)
      end
    end
    return rawget(parts, name)
  end,
})
local body = parts.codec.load(descriptors, {max_depth = 8}).messages["bench.Body"]
return function(payload)
  local request = body.decode(payload)
  return body.encode {body = request.body, rows = request.rows}
end
"""


async def run() -> dict[str, Any]:
    """Measure everything; give the document."""
    bundle = Bundle.load(ECHO)
    figures: dict[str, Any] = {"spawn_ms": await _spawns(bundle), "worker_mb": await _memory(bundle)}
    figures["after_kill_ms"] = await _after_kills()
    rows: Any = bundle.protos.message("bench.Body")()
    while rows.ByteSize() < MESSAGE:
        rows.rows.add(name=f"row {len(rows.rows)}", number=1000 * len(rows.rows), good=True)
    figures |= await _large(bundle, "rows", rows.SerializeToString())
    figures |= await _large(bundle, "blob", payload(MESSAGE))
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        async with trust_domain(Path(scratch)) as domain, _variants(Path(scratch), domain) as variants:
            figures["alone"] = await _latency(variants)
            _say(f"{BESIEGERS} hostile services")
            async with _hostile(Path(scratch)):
                figures["besieged"] = await _latency(variants)
    return {**figures, "targets": [asdict(row) for row in _targets(figures)]}


@asynccontextmanager
async def _variants(scratch: Path, domain: Domain) -> AsyncIterator[dict[str, Variant]]:
    command = [sys.executable, "-m", "mesh.cli", "lua", "run", str(ECHO)]
    environment = await domain.environment(SCRIPTED)
    async with (
        embedded(scratch, domain) as python,
        Process.started("lua", command, scratch, environment, talks=False) as server,
        client(scratch, "lua", SCRIPTED, CALLER, await domain.environment(CALLER)) as near,
    ):
        yield {PYTHON: python, LUA: Variant({CLIENT: near, SERVER: server})}


async def _latency(variants: dict[str, Variant]) -> dict[str, dict[str, float]]:
    _say(f"{ROUNDS} rounds of calls, one at a time")
    taken = await measure(variants, [Load("one", 100, 1, 1.0)], ROUNDS, time.monotonic() + 60)
    samples = taken.samples["one"]
    found = {
        name: {
            "p50_us": 1e6 * median(one.latency.p50 for one in each),
            "p99_us": 1e6 * median(one.latency.p99 for one in each),
        }
        for name, each in samples.items()
    }
    pairs = zip(samples[LUA], samples[PYTHON], strict=True)
    found["added"] = {"p50_us": 1e6 * median(lua.latency.p50 - python.latency.p50 for lua, python in pairs)}
    return found


@asynccontextmanager
async def _hostile(scratch: Path) -> AsyncIterator[None]:
    command = [sys.executable, "-m", "bench.hostile", str(BESIEGERS)]
    async with Process.started("hostile", command, scratch) as process:
        await process.answer(120)
        yield


async def _spawns(bundle: Bundle) -> float:
    _say(f"{SPAWNS} workers")
    took = []
    for _ in range(SPAWNS):
        began = time.perf_counter()
        worker = await _worker(bundle)
        took.append(1000 * (time.perf_counter() - began))
        await worker.close()
    return median(took)


async def _after_kills() -> float:
    """Give how long the call takes that comes right after one that had to be ended; the slowest of some."""
    _say(f"{SPAWNS} calls that are ended")
    took = []
    async with rehearse(Bundle.load(HOSTILE), Nobody()) as stage:
        for _ in range(SPAWNS):
            await stage.call(_METHOD, payload(6))
            began = time.perf_counter()
            await stage.call(_METHOD, b"")
            took.append(1000 * (time.perf_counter() - began))
    return max(took)


async def _memory(bundle: Bundle) -> float:
    worker = await _worker(bundle)
    try:
        return _resident_mb(worker.pid)
    finally:
        await worker.close()


def _resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


async def _worker(bundle: Bundle) -> Worker:
    limits = bundle.manifest.limits
    worker = await Worker.spawn(Cell(limits.memory, limits.message), ignore)
    await worker.load(start_of(bundle), 5)
    return worker


async def _large(bundle: Bundle, what: str, message: bytes) -> dict[str, float]:
    _say(f"messages of {MESSAGE // 1024} KiB: {what}")
    body = _in_process(bundle)
    jailed, inside = [], []
    async with rehearse(bundle, Nobody()) as stage:
        for _ in range(ROUNDS):
            began = time.perf_counter()
            for _ in range(CALLS):
                await stage.call(_METHOD, message)
            between = time.perf_counter()
            for _ in range(CALLS):
                body(message)
            jailed.append(1e6 * (between - began) / CALLS)
            inside.append(1e6 * (time.perf_counter() - between) / CALLS)
    ratio = median(one / other for one, other in zip(jailed, inside, strict=True))
    return {f"{what}_us": median(jailed), f"{what}_in_process_us": median(inside), f"{what}_ratio": ratio}


def _in_process(bundle: Bundle) -> Callable[[bytes], bytes]:
    lua = lua54.LuaRuntime(encoding=None)
    place = Path(sys.modules[Worker.__module__].__file__ or "").parent / "lua"
    sources = [part for file in place.glob("codec*.lua") for part in (file.stem.encode(), file.read_bytes())]
    found: Callable[[bytes], bytes] = lua.execute(_IN_PROCESS.encode(), bundle.protos.raw, *sources)
    return found


def _targets(figures: dict[str, Any]) -> list[Target]:
    def grown(name: str) -> float:
        besieged, alone = (figures[when][name]["p99_us"] for when in ("besieged", "alone"))
        return float(besieged / alone)

    return [
        Target(
            "a Lua handler adds to one in Python, p50",
            "≤ 300 µs",
            "≤ 120 µs",
            figures["alone"]["added"]["p50_us"],
            " µs",
        ),
        Target("spawn to ready", "≤ 100 ms", "", figures["spawn_ms"], " ms"),
        Target("the call after one that was ended, slowest", "≤ 100 ms", "", figures["after_kill_ms"], " ms"),
        Target("an idle worker, resident", "≤ 25 MB", "", figures["worker_mb"], " MB"),
        Target("64 KiB of rows, of lupa's in-process call", "≤ 3", "", figures["rows_ratio"]),
        Target(
            "- the same in one field of bytes, which costs lupa next to nothing",
            "",
            "",
            figures["blob_ratio"],
        ),
        Target(f"p99 in Python beside {BESIEGERS} hostile services, of alone", "≈ 1", "", grown(PYTHON)),
        Target(f"p99 in Lua beside {BESIEGERS} hostile services, of alone", "≈ 1", "", grown(LUA)),
    ]


def text(document: dict[str, Any]) -> str:
    """Give the tables of a document."""
    rows = [
        [
            name,
            *(
                number(document[when][name][key])
                for when in ("alone", "besieged")
                for key in ("p50_us", "p99_us")
            ),
        ]
        for name in (PYTHON, LUA)
    ]
    headers = ["one call at a time, µs", "p50", "p99", "p50 besieged", "p99 besieged"]
    names = block_of("", ["against the design"], [[row["what"]] for row in document["targets"]], left=True)
    figures = [
        [row["must"], row["aim"], number(row["measured"], None, row["unit"])] for row in document["targets"]
    ]
    targets = beside([names, block_of("", ["must", "aim", "measured"], figures)])
    return "\n".join([*block_of("", headers, rows)[1:], "", targets])


def _say(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench.jailed", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures there too")
    arguments = parser.parse_args()
    found = asyncio.run(run())
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print(text(found))
