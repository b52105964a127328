"""What a soak goes on about: calls at a steady rate, kills at random, keys as they turn."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any, Final

import grpc
import pytest

import mesh as sealmesh
from mesh.core.epochs import Epoch
from mesh.core.errors import PeerError
from mesh.core.keys import Key
from mesh.core.receiver import Admitted, Receiver
from mesh.core.sender import Sender
from mesh.core.wire import CallHeader, decode_call
from tests.e2e.echo import Dialogue, Echo, ask, reason, served, works
from tests.e2e.world import Mesh, appears

#: Calls that may be under way: more are not begun, and counted as left out.
AT_ONCE: Final = 500
#: Seconds from a kill to the restart, at most.
DEAD: Final = 1.0
#: Unary calls of a pair to each turn of its stream.
UNARY: Final = 4

Call = Callable[[], Awaitable[bytes]]


class Steady:
    """So many calls per second, whether those before have come back or not."""

    def __init__(self, calls: Sequence[Call], per_second: float) -> None:
        """Take what is called in turns."""
        self._calls, self._pause = calls, 1 / per_second
        self.took: list[float] = []
        self.failures: Counter[str] = Counter()
        self.left_out = 0

    async def run(self, seconds: float) -> None:
        """Call for so long, and wait for the last answer."""
        begun, number = time.monotonic(), 0
        going = set[asyncio.Task[None]]()
        async with asyncio.TaskGroup() as tasks:
            while (due := begun + number * self._pause) < begun + seconds:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                number += 1
                if len(going) >= AT_ONCE:
                    self.left_out += 1
                    continue
                task = tasks.create_task(self._one(self._calls[number % len(self._calls)]))
                going.add(task)
                task.add_done_callback(going.discard)

    async def _one(self, call: Call) -> None:
        begun = time.monotonic()
        try:
            await call()
        except grpc.aio.AioRpcError as error:
            said = re.sub(r" \[id .*", "", error.details() or "")
            self.failures[f"{error.code().name} {reason(error)}: {said}"] += 1
        else:
            self.took.append(time.monotonic() - begun)


class Killer:
    """Kills auths and gatekeepers, one at a time or both gatekeepers at once, and starts them again."""

    def __init__(self, meshes: Sequence[Mesh], whole: tuple[float, float], seed: int) -> None:
        """Take what runs, and for how many seconds all of it does before the next kill; ``seed`` chooses."""
        self._meshes, self._whole, self._random = meshes, whole, random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.done = False

    async def run(self) -> None:
        """Kill until it is done."""
        while not self.done:
            await self._random.choice((self._auth, self._auth, self._gatekeeper, self._gatekeepers))()
            await asyncio.sleep(self._random.uniform(*self._whole))

    async def _auth(self) -> None:
        mesh = self._random.choice(self._meshes)
        mesh.auth.kill()
        self.kills["auth"] += 1
        await asyncio.sleep(self._random.uniform(0, DEAD))
        await mesh.start_auth()

    async def _gatekeeper(self) -> None:
        await self._kill([self._random.choice(self._meshes)])

    async def _gatekeepers(self) -> None:
        await self._kill(self._meshes)

    async def _kill(self, meshes: Sequence[Mesh]) -> None:
        for mesh in meshes:
            mesh.gatekeeper.kill()
            self.kills["gatekeeper"] += 1
        await asyncio.sleep(self._random.uniform(0, DEAD))
        for mesh in meshes:
            await mesh.start_gatekeeper()


class Pairs:
    """The established pairs: embedded, through sidecars, and mixed; unary calls and lasting streams."""

    nodes: list[sealmesh.Node]

    def __init__(self) -> None:
        """Start with none."""
        self.dialogues: list[Dialogue] = []
        self.calls: list[Call] = []

    async def establish(self, mesh: Mesh, stack: AsyncExitStack) -> None:
        """Have them join and talk."""
        caller = await stack.enter_async_context(mesh.node("caller"))
        callee = await stack.enter_async_context(mesh.node("callee"))
        self.nodes = [caller, callee]
        callee.server().add_generic_rpc_handlers((Echo(),))
        await callee.server().start()
        port = await stack.enter_async_context(served(Echo()))
        await mesh.sidecar("back", "--app-port", str(port))
        front = await mesh.sidecar("front")
        await appears(front.socket("back"))
        socket = await stack.enter_async_context(front.channel("back"))
        loopback = await stack.enter_async_context(front.port())
        embedded, mixed = caller.channel("callee"), caller.channel("back")
        unary = [ask(embedded), ask(mixed), ask(socket), ask(loopback, to="callee")]
        for call in unary:
            await works(call)
        self.dialogues = [Dialogue(embedded), Dialogue(mixed), Dialogue(socket), Dialogue(loopback, "callee")]
        self.calls = [*(UNARY * unary), *(_in_turn(dialogue) for dialogue in self.dialogues)]

    async def end(self) -> None:
        """End the streams, whole."""
        for dialogue in self.dialogues:
            await dialogue.end()


def _in_turn(dialogue: Dialogue) -> Call:
    # One turn after the other; those that wait are part of what is measured.
    lock = asyncio.Lock()

    async def turn() -> bytes:
        async with lock:
            return await dialogue.turn()

    return turn


class Turning:
    """What the nodes of this process were given, and when each epoch's keys were last used here."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.epochs: dict[int, Epoch] = {}
        self.certificates: set[bytes] = set()
        self.refused: Counter[str] = Counter()
        self._sealed: dict[int, float] = {}
        self._admitted: dict[int, float] = {}

    def sealed_late_ms(self) -> float:
        """How long after its epoch's end a call was sealed, at most; negative if none was."""
        return max(at - self.epochs[number].ends_ms for number, at in self._sealed.items())

    def admitted_late_ms(self) -> float:
        """How long after the last moment of its epoch a call was admitted, at most; negative if none was."""
        return max(at - self.epochs[number].accepted_until_ms for number, at in self._admitted.items())

    @contextmanager
    def watched(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Watch every node of this process for the length of the block, by the clock of the machine."""
        with monkeypatch.context() as patched:
            patched.setattr(Sender, "seal", self._sealing(Sender.seal))
            patched.setattr(Receiver, "admit", self._admitting(Receiver.admit))
            patched.setattr(Receiver, "learn", self._learning(Receiver.learn))
            yield

    def watch(self, node: sealmesh.Node) -> None:
        """Count the certificates of a node."""
        node.membership.on_svid(lambda: self.certificates.add(node.membership.svid.chain_pem))

    def _sealing(self, seal: Any) -> Any:
        def sealing(sender: Sender, *args: Any) -> Any:
            value, made = seal(sender, *args)
            number = CallHeader.decode(decode_call(value)[1]).epoch.number
            self._sealed[number] = time.time() * 1000
            return value, made

        return sealing

    def _admitting(self, admit: Any) -> Any:
        def admitting(receiver: Receiver, *args: Any) -> Admitted:
            try:
                admitted: Admitted = admit(receiver, *args)
            except PeerError as error:
                self.refused[str(error.cause)] += 1
                raise
            self._admitted[admitted.header.epoch.number] = time.time() * 1000
            return admitted

        return admitting

    def _learning(self, learn: Any) -> Any:
        def learning(receiver: Receiver, epoch: Epoch, key: Key) -> None:
            self.epochs[epoch.number.number] = epoch
            learn(receiver, epoch, key)

        return learning
