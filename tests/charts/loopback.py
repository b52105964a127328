"""A network for pods on one machine: each of the control plane has a loopback address, and its ports."""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Mapping
from typing import Any


def free_port() -> int:
    """Give a port that nobody has at the moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Loopback:
    """Addresses in the places of names. There are so many ``replicas`` of auth and of gatekeeper."""

    def __init__(self, replicas: int) -> None:
        """Choose addresses."""
        self._replicas = replicas
        self._net = f"127.{random.randint(16, 250)}.{random.randint(1, 250)}"
        self._ports: dict[str, int] = {}

    def located(self, text: str, pod: Mapping[str, Any]) -> str:
        """Take a service of one replica for that one, and one of all for all, as they were balanced."""
        text = re.sub(r"sealmesh-(auth|gatekeeper)-([0-9])\.mesh\.svc", self._one, text)
        text = re.sub(r"sealmesh-(auth|gatekeeper)\.mesh\.svc:([0-9]+)", self._all, text)
        # By this name the API server finds the injector, and its certificate is for it.
        text = text.replace("sealmesh-injector.mesh.svc", "localhost")
        named = re.fullmatch(r"sealmesh-(auth|gatekeeper)-([0-9])", pod["metadata"]["name"])
        if named:
            return text.replace("0.0.0.0", self._at(named[1], named[2]))
        # A node is registered where it comes from, which is one address for all that is on this machine.
        listening = re.compile(r"0\.0\.0\.0:([0-9]+)")
        return listening.sub(lambda m: f"127.0.0.1:{self.port(pod['metadata']['name'], m[1])}", text)

    def port(self, pod: str, port: int | str) -> int:
        """Give where a port of a pod that is not the control plane's is, at 127.0.0.1."""
        return self._ports.setdefault(f"{pod}:{port}", free_port())

    def _one(self, found: re.Match[str]) -> str:
        return self._at(found[1], found[2])

    def _all(self, found: re.Match[str]) -> str:
        return ",".join(f"{self._at(found[1], number)}:{found[2]}" for number in range(self._replicas))

    def _at(self, part: str, number: int | str) -> str:
        return f"{self._net}.{(10 if part == 'auth' else 30) + int(number)}"
