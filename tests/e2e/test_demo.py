"""``mesh demo`` as a user runs it: in a process, to its end, and interrupted; and with a check taken out."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(180)

MESH = "import sys; sys.argv[0] = 'mesh'; from mesh.cli import main; main()"
SUMMARY = re.compile(r"(\d+) of (\d+) good calls succeeded, (\d+) of (\d+) attacks were stopped")


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Give the directory that the demo takes for temporary; its name marks the demo's processes."""
    made = Path(tempfile.mkdtemp(prefix="e2e-"))
    yield made
    shutil.rmtree(made)


def environment(scratch: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(scratch), "NO_COLOR": "1", **more}


def run(scratch: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment(scratch),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def started(scratch: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MESH, "demo", *arguments],
        env=environment(scratch, PYTHONUNBUFFERED="1", **more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(demo: subprocess.Popen[str], text: str) -> str:
    assert demo.stdout is not None
    told = ""
    for line in demo.stdout:
        told += line
        if text in line:
            return told
    raise AssertionError(told)


def left_behind(scratch: Path) -> list[str]:
    """Give the files in the scratch directory, and the processes that have it in their environment."""
    found = [str(path) for path in scratch.iterdir()]
    mark = f"TMPDIR={scratch}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it ended meanwhile, or is not ours
            continue
    return found


def test_every_good_call_succeeds_and_every_attack_is_stopped(scratch: Path) -> None:
    """The status is 0, the table says so of each row, and nothing is left behind."""
    done = run(scratch, MESH, "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    good, calls, stopped, attacks = map(int, SUMMARY.search(done.stdout).groups())  # type: ignore[union-attr]
    assert (good, stopped) == (calls, attacks)
    rows = re.findall(r"^  (stopped|THROUGH|ok|FAIL) ", done.stdout, re.MULTILINE)
    assert (rows.count("ok"), rows.count("stopped"), len(rows)) == (calls, attacks, calls + attacks)
    assert attacks >= 9
    assert "\x1b" not in done.stdout
    assert left_behind(scratch) == []


SABOTAGES = {
    "a captured call sent again": "from mesh.core.replay import ReplayWindow; "
    "ReplayWindow.accept = lambda self, number: True",
    "a bit of a request turned over": "from mesh.core.keys import Key; "
    "Key.verify = lambda self, mac, *parts: True",
    "a request stream cut short": "from mesh.core.seal import FrameOpener; "
    "FrameOpener.finish = lambda self: None",
    "orders calls Refund": "from mesh.core.matcher import Matcher, Permit; "
    "Matcher.permit = lambda self, source, method, entries, now_ms=None: Permit(source, method, 'any')",
}
SABOTAGED = """
import asyncio, sys
{sabotage}
from examples.shop.demo import run
from examples.shop.demo.attacks import ATTACKS
tried = {{"tried": [attack for tried in ATTACKS.values() for attack in tried if attack.name == sys.argv[1]]}}
sys.exit(asyncio.run(run(keep=False, attacks=tried)))
"""


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_check_taken_out_is_noticed(scratch: Path, name: str) -> None:
    """With the check gone the attack is shown to get through, and the status is 1: the attacks are real."""
    done = run(scratch, SABOTAGED.format(sabotage=SABOTAGES[name]), name)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(rf"THROUGH +{re.escape(name)}", done.stdout), done.stdout + done.stderr
    assert left_behind(scratch) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["auth and gatekeeper", "Good calls"])
def test_an_interruption_leaves_nothing(scratch: Path, number: signal.Signals, moment: str) -> None:
    """Ctrl-C and SIGTERM end it cleanly, in the middle of setting up as well as later."""
    demo = started(scratch)
    read_until(demo, moment)
    demo.send_signal(number)
    told, _ = demo.communicate()
    assert demo.returncode == 130, told
    assert "Traceback" not in told
    assert left_behind(scratch) == []


def test_keep_leaves_it_up_and_says_how_to_call_it(scratch: Path) -> None:
    """The command that it prints works, without Node.js, too; Ctrl-C ends it with the status of the run."""
    demo = started(scratch, "--keep", PATH="/nowhere")
    told = read_until(demo, "shop.customer")
    assert "Python: there is no Node.js here" in told
    command = told.splitlines()[-1].split()
    bought = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (bought.returncode, bought.stderr) == (0, "")
    assert bought.stdout.startswith("order 3: 2 mug for 18.00")
    demo.send_signal(signal.SIGINT)
    rest, _ = demo.communicate()
    assert demo.returncode == 0, told + rest
    assert left_behind(scratch) == []


DYING = """
import sys
from examples.shop.demo import main, setting
setting._inventory = lambda port: ("a broken one", [sys.executable, "-c", "import sys; sys.exit('boom')"])
sys.exit(main(keep=False))
"""


def test_a_service_that_does_not_start_is_told(scratch: Path) -> None:
    """One error, with the end of that service's log, instead of a wait; and nothing is left behind."""
    done = run(scratch, DYING)
    assert done.returncode == 1
    assert "mesh run inventory ended with status 1" in done.stderr
    assert "boom" in done.stderr
    assert "Traceback" not in done.stderr
    assert left_behind(scratch) == []
