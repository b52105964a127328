"""Landlock takes away all that the kernel's version of it knows, and says so if it does not."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Final

import pytest

from services.lua_host.jail import kernel, landlock
from tests.lua_host.jail.child import Child

CREATE_RULESET: Final = 444


@pytest.mark.parametrize(
    ("abi", "files", "tcp", "scopes"),
    [
        (1, 0x1FFF, 0, 0),
        (2, 0x3FFF, 0, 0),
        (3, 0x7FFF, 0, 0),
        (4, 0x7FFF, 3, 0),
        (5, 0xFFFF, 3, 0),
        (6, 0xFFFF, 3, 3),
        (7, 0xFFFF, 3, 3),
        (99, 0xFFFF, 3, 3),
    ],
)
def test_each_abi_is_asked_for_all_it_knows(abi: int, files: int, tcp: int, scopes: int) -> None:
    """No bit less than the ABI has, and none that it would refuse."""
    assert struct.unpack("=QQQ", landlock.ruleset(abi)) == (files, tcp, scopes)


def test_no_rights_that_this_kernel_knows_are_left_out() -> None:
    """One bit more in any of the three sets, and the kernel does not know it, or the table is too old."""
    abi = kernel.syscall(CREATE_RULESET, 0, 0, 1)
    known = struct.unpack("=QQQ", landlock.ruleset(abi))
    for which in range(3):
        more = [value << 1 | 1 if at == which else value for at, value in enumerate(known)]
        attributes = struct.pack("=QQQ", *more)
        with pytest.raises(OSError, match=r"Invalid argument|Argument list too long"):
            kernel.syscall(CREATE_RULESET, attributes, len(attributes), 0)


# What can be done before, and not after. The sibling is a process outside of the domain.
ATTEMPTS: Final = """
def connect(family, address):
    end = socket.socket(family, socket.SOCK_STREAM)
    try:
        return end.connect(address)
    finally:
        end.close()

def bind():
    end = socket.socket()
    try:
        return end.bind(("127.0.0.1", 0))
    finally:
        end.close()

sibling = bystander()

def trials():
    say(attempt(lambda: open("/proc/self/statm").close()))
    say(attempt(lambda: os.listdir("/") and None))
    say(attempt(os.mkdir, f"{FOLDER}/made"))
    say(attempt(os.rmdir, f"{FOLDER}/given"))
    say(attempt(connect, socket.AF_INET, ("127.0.0.1", PORT)))
    say(attempt(bind))
    say(attempt(connect, socket.AF_UNIX, ABSTRACT))
    say(attempt(os.kill, sibling, 0))

trials()
os.rename(f"{FOLDER}/made", f"{FOLDER}/given")
kernel.prctl(38, 1)
landlock.restrict()
trials()
"""


def test_what_could_be_done_before_cannot_after(tmp_path: Path) -> None:
    """Files, directories, TCP, other processes' abstract sockets and signals, as far as this kernel can."""
    (tmp_path / "given").mkdir()
    abstract = f"\0{tmp_path}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(abstract)
        unix.listen()
        names = {"FOLDER": str(tmp_path), "PORT": tcp.getsockname()[1], "ABSTRACT": abstract}
        with Child("".join(f"{name} = {value!r}\n" for name, value in names.items()) + ATTEMPTS) as child:
            said = child.everything()
            assert child.end() == 0
    assert said[:8] == ["None"] * 8
    abi = kernel.syscall(CREATE_RULESET, 0, 0, 1)
    refused = ["EACCES"] * 4
    refused += ["EACCES" if abi >= 4 else "None"] * 2
    refused += ["EPERM" if abi >= 6 else "None"] * 2
    assert said[8:] == refused
    assert (tmp_path / "given").is_dir()
