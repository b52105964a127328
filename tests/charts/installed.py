"""What the images hold, built by the script that builds them, and programs started from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.charts.rendered import ROOT

IMAGES = ("control", "sidecar", "lua")
TIMEOUT = 120.0


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build each image's contents, as the Dockerfile does; nothing may be written there afterwards."""
    place = tmp_path_factory.mktemp("images")
    builds = {name: place / name for name in IMAGES}
    running = [
        subprocess.Popen(
            [ROOT / "images" / "install", name, path], env={**os.environ, "PYTHON": sys.executable}
        )
        for name, path in builds.items()
    ]
    assert [one.wait(600) for one in running] == [0, 0, 0]
    return builds


def environment(**more: str) -> dict[str, str]:
    """Give what an image has: no path of ours, and nothing is written beside the code."""
    return {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONSAFEPATH": "1", **more}


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.05)  # a look, not a wait: nobody tells when another process has changed


class Running:
    """Processes from images, each in an empty directory, ended with the test."""

    def __init__(self, built: dict[str, Path], path: Path, stack: ExitStack) -> None:
        self.built, self.path, self._stack = built, path, stack
        self.empty = path / "empty"
        self.empty.mkdir()

    def words(self, image: str, *words: str | Path) -> list[str]:
        """Give a command line of an image: ``mesh …`` or ``python -m …``."""
        return [str(self.built[image] / "bin" / str(words[0])), *map(str, words[1:])]

    def start(self, image: str, *words: str | Path, **more: str) -> subprocess.Popen[str]:
        """Start a program."""
        process = subprocess.Popen(
            self.words(image, *words),
            cwd=self.empty,
            env=environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._stack.callback(process.communicate)
        self._stack.callback(process.kill)
        return process

    def run(self, image: str, *words: str | Path, **more: str) -> str:
        """Run a program to its end."""
        done = subprocess.run(
            self.words(image, *words),
            cwd=self.empty,
            env=environment(**more),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def line(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """Give the line of JSON that a program says when it is ready."""
        assert process.stdout is not None
        found: dict[str, Any] = json.loads(process.stdout.readline())
        return found


@pytest.fixture
def running(built: dict[str, Path], tmp_path: Path) -> Iterator[Running]:
    with ExitStack() as stack:
        yield Running(built, tmp_path, stack)
