"""What tests of several parts need."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# `make charts` runs those, where Helm's code and Kubernetes' schemas are: more than all else together.
collect_ignore = [] if find_spec("helm_python") else ["charts"]
# And there is no client of PostgreSQL there, and no Hypothesis.
pytest_plugins = ["tests.postgres"] if find_spec("psycopg") else []

if find_spec("hypothesis"):
    # Before any test is imported: settings that a test makes begin with the profile that is loaded.
    from tests import profiles

    profiles.load()


@pytest.fixture(scope="session")
def node_packages() -> Callable[[Path], None]:
    """Give what sees to it that the packages of a Node project are installed.

    In CI Node has to be there; on a machine without it the test is left out, and says so.
    """

    def install(project: Path) -> None:
        if not (shutil.which("node") and shutil.which("npm")):
            if os.environ.get("CI"):
                pytest.fail("node and npm are needed: .ci/run installs them")
            pytest.skip("needs Node.js: install node and npm")
        if not (project / "node_modules").is_dir():
            command = ["npm", "ci", "--loglevel=error", "--ignore-scripts", "--no-audit", "--no-fund"]
            subprocess.run(command, cwd=project, check=True, timeout=300)

    return install
