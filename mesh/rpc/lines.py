"""The TCP connections that this process has accepted at a port, as the kernel knows them.

gRPC's own sockets, found by their descriptors: how much each has received (``TCP_INFO``, tcp(7)), and two
things that gRPC offers no way to do. *Hanging up*: dissolving the connection (``connect`` to ``AF_UNSPEC``,
connect(2)), which drops what has come and was not read; ``shutdown`` would have it all read first. *Shutting
out*: a packet filter on the listening socket (``SO_ATTACH_FILTER``, socket(7); it takes no privilege) that
drops the packets of addresses, so that they cannot connect. Connections that are there stay.

Descriptors may be closed and given anew at any time by gRPC's threads: whatever is hung up on is hung up on
by a duplicate that was made first and looked at after. Linux only; elsewhere there are no lines.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import stat
import struct
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Final
from urllib.parse import quote

#: Where struct tcp_info has tcpi_bytes_received, since Linux 4.1; and how much of it is read.
_RECEIVED: Final = 128
_INFO: Final = _RECEIVED + 8
_ATTACH_FILTER: Final = 26
_DETACH_FILTER: Final = 27
#: Classic BPF (linux/filter.h), and where it finds the network header.
_BYTE, _WORD, _AND, _EQUAL, _JUMP, _RETURN = 0x30, 0x20, 0x54, 0x15, 0x05, 0x06
_NETWORK: Final = 0xFFF00000
_ALL: Final = 0xFFFFFFFF
#: A program has at most 4096 instructions.
_MOST: Final = 256
#: Of all that are looked at again and again: TCP_INFO is the same of both families.
_KIND: Final = socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
_NONE: Final = -1, -1
_LINUX: Final = sys.platform == "linux"


class Lines:
    """Connections accepted at one port, by their peers as gRPC writes them."""

    def __init__(self, port: int) -> None:
        """Take the port; nothing is looked at yet."""
        self._port = port
        self._known: dict[int, tuple[int, str | None]] = {}
        self._descriptors: dict[str, tuple[int, int]] = {}

    def received(self) -> dict[str, int]:
        """Give how many bytes each connection has received so far."""
        found: dict[str, int] = {}
        known, self._descriptors = self._known, {}
        self._known = {}
        for descriptor, inode in _sockets():
            kept = known.get(descriptor)
            peer = kept[1] if kept is not None and kept[0] == inode else self._peer(descriptor)
            self._known[descriptor] = inode, peer
            if peer is not None:
                with suppress(OSError), _Borrowed(descriptor, *_KIND) as line:
                    info = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO)
                    found[peer] = struct.unpack_from("Q", info, _RECEIVED)[0]
                    self._descriptors[peer] = descriptor, inode
        return found

    def hang_up(self, peer: str) -> bool:
        """Dissolve a connection; whether it was there."""
        if peer not in self._descriptors:
            self.received()  # it came after the last look
        descriptor, inode = self._descriptors.get(peer, _NONE)
        self._descriptors[peer] = _NONE
        try:
            held = os.dup(descriptor)
        except OSError:
            return False
        try:
            return os.fstat(held).st_ino == inode and _dissolve(held)
        finally:
            os.close(held)

    def shut_out(self, addresses: Collection[str]) -> None:
        """Have nobody connect from these addresses, and everybody else."""
        program = filtering(addresses) if addresses else b""
        for descriptor, _ in _sockets():
            with suppress(OSError), _Borrowed(descriptor) as listener:
                if self._listens(listener):
                    _filter(listener, program)

    def _peer(self, descriptor: int) -> str | None:
        try:
            with _Borrowed(descriptor) as line:
                if line.family not in (socket.AF_INET, socket.AF_INET6) or line.type != socket.SOCK_STREAM:
                    return None
                return peer_of(line.getpeername()) if line.getsockname()[1] == self._port else None
        except OSError:  # it listens, or is closed
            return None

    def _listens(self, found: socket.socket) -> bool:
        if found.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        listening = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return bool(listening) and found.getsockname()[1] == self._port


class _Borrowed:
    """A socket over a descriptor that stays its owner's."""

    def __init__(self, descriptor: int, family: int = -1, kind: int = -1, protocol: int = -1) -> None:
        # What is not given is asked of the kernel, each.
        self._socket = socket.socket(family, kind, protocol, descriptor)

    def __enter__(self) -> socket.socket:
        return self._socket

    def __exit__(self, *_: object) -> None:
        self._socket.detach()


def _sockets() -> Iterator[tuple[int, int]]:
    # Descriptor and inode, which no two sockets share.
    if not _LINUX:
        return
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  names are all that is wanted, twenty times a second
        with suppress(OSError):
            found = os.fstat(int(name))
            if stat.S_ISSOCK(found.st_mode):
                yield int(name), found.st_ino


def peer_of(name: tuple[str, int]) -> str:
    """Write the name of a peer's socket as gRPC does."""
    host, port = name[0].partition("%")[0], name[1]
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return f"ipv6:{quote(f'[{address}]', safe=':')}:{port}"
        address = address.ipv4_mapped
    return f"ipv4:{address}:{port}"


def _dissolve(descriptor: int) -> bool:
    unspecified = ctypes.create_string_buffer(struct.pack("H14x", socket.AF_UNSPEC))
    return bool(ctypes.CDLL(None, use_errno=True).connect(descriptor, unspecified, 16) == 0)


def _filter(listener: socket.socket, program: bytes) -> None:
    if not program:
        listener.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)
        return
    held = ctypes.create_string_buffer(program, len(program))
    given = struct.pack("HP", len(program) // 8, ctypes.addressof(held))
    listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, given)


def filtering(addresses: Collection[str]) -> bytes:
    """Give a program that drops what comes from IPv4 addresses and networks of IPv6 (of 64 bits)."""
    networks = [ipaddress.ip_network(address, strict=False) for address in sorted(addresses)]
    old = [int(one.network_address) for one in networks if one.version == 4][:_MOST]  # noqa: PLR2004
    new = [int(one.network_address) >> 64 for one in networks if one.version == 6][:_MOST]  # noqa: PLR2004
    drop, take = _instruction(_RETURN, 0), _instruction(_RETURN, _ALL)
    fourth = [_instruction(_WORD, _NETWORK + 12)]
    fourth += [_instruction(_EQUAL, address, 0, 1) + drop for address in old]
    sixth = [
        _instruction(_WORD, _NETWORK + 8)
        + _instruction(_EQUAL, network >> 32, 0, 3)
        + _instruction(_WORD, _NETWORK + 12)
        + _instruction(_EQUAL, network & 0xFFFFFFFF, 0, 1)
        + drop
        for network in new
    ]
    block = b"".join(fourth) + take
    version = _instruction(_BYTE, _NETWORK) + _instruction(_AND, 0xF0) + _instruction(_EQUAL, 0x40, 1, 0)
    return version + _instruction(_JUMP, len(block) // 8) + block + b"".join(sixth) + take


def _instruction(code: int, operand: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("HBBI", code, true, false, operand)
