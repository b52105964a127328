"""What the images hold, built by the script that builds them, and each program started from it.

There is no container engine here. ``images/Dockerfile`` does nothing beside this script but to copy what it
makes onto a base; a linter reads that.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.charts.installed import IMAGES, Running, environment, until
from tests.charts.rendered import ROOT, render, values
from tests.inject.pods import DOCUMENT
from tests.kubernetes import HOOKS, WEBHOOKS, fake_api

DOCKERFILE = ROOT / "images" / "Dockerfile"
#: What each image has beside Sealmesh's own dependencies, as modules.
EXTRAS = {
    "control": {"boto3", "lightkube", "starlette", "uvicorn"},
    "sidecar": set(),
    "lua": {"lupa", "grpc_tools"},
}
#: Options that the chart has no use for.
UNASKED = {
    "services.gatekeeper": {"--token-file"},  # Kubernetes vouches for it
}
#: What none may have: what installs, compiles or tests.
NONE = {"pip", "hatchling", "cyclonedx", "pytest", "mypy", "hypothesis", "helm_python"}
# Three environments are installed in the setup of whichever test comes first.
pytestmark = pytest.mark.timeout(600)


def modules(image: Path) -> set[str]:
    return {path.name.removesuffix(".py") for path in (image / "site").iterdir()}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_holds_what_it_needs_and_nothing_else(built: dict[str, Path], name: str) -> None:
    """No installer, no test tool, and no Kubernetes client beside an app."""
    held = modules(built[name])
    assert {"mesh", "services", "sidecar", "grpc", "cryptography"} | EXTRAS[name] <= held
    others = set().union(*EXTRAS.values()) - EXTRAS[name]
    assert held & (NONE | others) == set()


@pytest.mark.parametrize("name", IMAGES)
def test_the_bill_of_materials_names_what_the_lock_pins(built: dict[str, Path], name: str) -> None:
    """Each package with its version, and no other."""
    listed = json.loads((built[name] / "sbom.cdx.json").read_text())
    assert listed["bomFormat"] == "CycloneDX"
    found = {(re.sub(r"[-_.]+", "-", one["name"]).lower(), one["version"]) for one in listed["components"]}
    lock = (ROOT / "requirements" / f"image-{name}.txt").read_text()
    pinned = set(re.findall(r"^([a-z0-9.-]+)==(\S+)", lock, re.MULTILINE))
    pinned = {(re.sub(r"[-_.]+", "-", one), version) for one, version in pinned}
    own = {one for one in found if one[0] == "sealmesh"}
    assert len(own) == 1
    # A pin may be for another system or Python.
    assert found - own <= pinned
    assert len(found - own) > 0.7 * len(pinned)


def test_each_program_starts(running: Running) -> None:
    """Control plane, operator, sidecar, a service in Lua; and nothing is written to their images."""
    before = {name: tree(path) for name, path in running.built.items()}
    data = running.path / "data"
    running.run("control", "mesh", "init", data, "--trust-domain", "shop.example")
    mesh = running.start("control", "mesh", "up", "--data", data, "--port-base", "0")
    assert mesh.stdout is not None
    assert mesh.stdout.readline().startswith("mesh is up")
    running.run("control", "mesh", "status", MESH_DATA=str(data))
    options = ("--data", data, "--service", "visitor")
    sidecar = running.start("sidecar", "mesh", "sidecar", *options)
    assert running.line(sidecar)["service"] == "visitor"
    running.run("sidecar", "python", "-m", "sidecar.drain", str(sidecar.pid))
    site = running.built["lua"] / "site"
    lua = ("lua", "run", "--data", data, "-I", site, site / "examples" / "shop" / "pricing")
    assert running.line(running.start("lua", "mesh", *lua))["service"] == "pricing"
    assert sidecar.poll() is None
    assert {name: tree(path) for name, path in running.built.items()} == before


def tree(path: Path) -> set[tuple[str, int]]:
    return {(str(one), one.lstat().st_mtime_ns) for one in path.rglob("*")}


def test_the_injector_starts(running: Running) -> None:
    """With the command line that the chart gives it, but for where it listens."""
    settings = running.path / "settings.yaml"
    settings.write_text(json.dumps(DOCUMENT))
    with fake_api() as api:
        hook = f"{HOOKS}/sealmesh-injector"
        api.put(hook, webhooks=WEBHOOKS)
        arguments = (
            "--settings",
            settings,
            "--listen",
            "127.0.0.1:0",
            "--name",
            "i.mesh.svc",
            "--namespace",
            "mesh",
        )
        kubeconfig = str(api.kubeconfig(running.path / "kubeconfig"))
        running.start("control", "python", "-m", "services.injector", *arguments, KUBECONFIG=kubeconfig)
        until(
            lambda: "/api/v1/namespaces/mesh/secrets/sealmesh-injector-tls" in api.objects, "its certificate"
        )
        assert api.objects[hook]["webhooks"][0]["clientConfig"]["caBundle"]


def test_the_chart_starts_programs_that_the_image_has(built: dict[str, Path]) -> None:
    """Every option in the chart is one that the program knows, and every other has its reason."""
    texts = [render(values(name)) for name in ("full", "cert-manager")]
    for image, template, module in (
        ("control", "auth/statefulset.yaml", "services.auth"),
        ("control", "gatekeeper/statefulset.yaml", "services.gatekeeper"),
        ("control", "injector/deployment.yaml", "services.injector"),
    ):
        written = "".join(one[template] for one in texts)
        asked = set(re.findall(r"^ +- (--[a-z-]+)=", written, re.MULTILINE))
        said = subprocess.run(
            [built[image] / "bin" / "python", "-m", module, "--help"],
            capture_output=True,
            text=True,
            check=True,
            env=environment(COLUMNS="200"),
        ).stdout
        assert asked
        assert set(re.findall(r"--[a-z][a-z-]+", said)) - {"--help"} == asked | UNASKED.get(module, set())


def test_the_linter_finds_nothing() -> None:
    """Of Dockerfiles, with every rule of its own."""
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert linter is not None
    done = subprocess.run([linter, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_no_program_of_an_image_is_set_uid(tmp_path: Path) -> None:
    """The command in the Dockerfile takes the bits off, of files alone, wherever they are."""
    text = DOCKERFILE.read_text().partition("AS runtime")[2].partition("USER ")[0]
    (command,) = re.findall(r"^ +&& (find / .*)$", text, re.MULTILINE)
    modes = {"su": 0o4755, "wall": 0o2755, "both": 0o6711, "plain": 0o755}
    for name, mode in modes.items():
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    subprocess.run(["/bin/sh", "-ec", command.replace("find /", f"find {tmp_path}")], check=True)
    assert {name: (tmp_path / name).stat().st_mode & 0o7777 for name in modes} == {
        name: mode & 0o777 for name, mode in modes.items()
    }


def test_the_dockerfile_is_pinned_and_unprivileged() -> None:
    """The one base is named by its digest, and every image runs as a user that is not root."""
    text = DOCKERFILE.read_text()
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE)
    names = {name for _, name in stages}
    assert [base for base, _ in stages if base not in names] == ["${PYTHON_IMAGE}@${PYTHON_DIGEST}"]
    assert {base for base, name in stages if name in IMAGES} == {"runtime"}
    assert "USER 65532:65532" in text.partition("AS runtime")[2]
    assert {name for _, name in stages} >= set(IMAGES)
