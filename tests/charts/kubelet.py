"""A kubelet in miniature: runs the containers of a pod as processes, with the very commands it says.

What differs from a node is replaced, and nothing else: paths of mounts by places in a directory, names of
services by loopback addresses, ``0.0.0.0`` by the pod's own. Each container runs from what its image holds.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from tests.charts.installed import environment

#: The end of an image's name, and the build that it is.
IMAGES = ("control", "sidecar")


class Cluster(Protocol):
    """What a kubelet asks the API server for, and the network for addresses."""

    def config(self, namespace: str, name: str) -> Mapping[str, str]:
        """Give the data of a ConfigMap."""

    def secret(self, namespace: str, name: str) -> Mapping[str, bytes]:
        """Give the data of a Secret."""

    def token(self, pod: Mapping[str, Any], audience: str) -> str:
        """Have a token made for a pod, or with ``""`` for the API server itself."""

    def kubeconfig(self, pod: Mapping[str, Any]) -> Path:
        """Give the way to the API server as a pod's own service account."""

    def located(self, text: str, pod: Mapping[str, Any]) -> str:
        """Put addresses in the places of names."""


class Pod:
    """One pod, whose containers are started by name."""

    def __init__(
        self, pod: Mapping[str, Any], cluster: Cluster, built: Mapping[str, Path], stack: ExitStack
    ) -> None:
        """Take its object, and mount its volumes."""
        self.pod, self.name = pod, str(pod["metadata"]["name"])
        self._cluster, self._built, self._stack = cluster, built, stack
        # The path of a socket is short.
        self.path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pod")))
        self._volumes = {one["name"]: one for one in pod["spec"].get("volumes", [])}
        self.running: dict[str, subprocess.Popen[str]] = {}

    def container(self, name: str) -> Mapping[str, Any]:
        """Give the specification of a container, of whichever kind."""
        spec = self.pod["spec"]
        (found,) = [
            one for one in (*spec.get("initContainers", []), *spec["containers"]) if one["name"] == name
        ]
        return dict(found)

    def start(self, name: str) -> subprocess.Popen[str]:
        """Start a container."""
        container = self.container(name)
        words = [*container.get("command", ["mesh"]), *container.get("args", [])]
        self.running[name] = self._process(container, words)
        return self.running[name]

    def probe(self, name: str, kind: str) -> str:
        """Run the command of a probe: gives ``""``, or what it says if it fails."""
        container = self.container(name)
        process = self._process(container, container[f"{kind}Probe"]["exec"]["command"])
        said, _ = process.communicate(timeout=60)
        return "" if process.returncode == 0 else said.strip() or "?"

    def _process(self, container: Mapping[str, Any], words: list[str]) -> subprocess.Popen[str]:
        mounts = self._mounts(container)
        env = self._env(container, mounts)
        expanded = [re.sub(r"\$\((\w+)\)", lambda found: env[found[1]], word) for word in words]
        first, *rest = (self._placed(word, mounts) for word in expanded)
        (image,) = [one for one in IMAGES if re.search(rf"{one}\b", container["image"])]
        more = {} if self._is_unknown else {"KUBECONFIG": str(self._cluster.kubeconfig(self.pod))}
        with (self.path / f"{container['name']}.log").open("a") as log:
            process = subprocess.Popen(
                [self._built[image] / "bin" / first, *rest],
                cwd=self.path,
                env=environment(**env, **more),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._stack.callback(process.communicate)
        self._stack.callback(process.kill)
        return process

    @property
    def _is_unknown(self) -> bool:
        # To the API server, as a pod is without a token for it.
        return self.pod["spec"].get("automountServiceAccountToken") is False

    def log(self, name: str) -> str:
        """Give what a container has said."""
        return (self.path / f"{name}.log").read_text()

    def _env(self, container: Mapping[str, Any], mounts: Mapping[str, Path]) -> dict[str, str]:
        env = {}
        for one in container.get("env", []):
            source = one.get("valueFrom", {})
            if "fieldRef" in source:
                env[one["name"]] = self.name
            elif "secretKeyRef" in source:
                secret = source["secretKeyRef"]
                env[one["name"]] = self._cluster.secret(self._namespace, secret["name"])[
                    secret["key"]
                ].decode()
            else:
                env[one["name"]] = self._placed(one["value"], mounts)
        return env

    @property
    def _namespace(self) -> str:
        return str(self.pod["metadata"]["namespace"])

    def _mounts(self, container: Mapping[str, Any]) -> dict[str, Path]:
        found = {}
        for mount in container["volumeMounts"]:
            volume = self._mounted(mount["name"])
            found[mount["mountPath"]] = volume / mount["subPath"] if "subPath" in mount else volume
        return found

    def _mounted(self, name: str) -> Path:
        place, volume = self.path / name, self._volumes.get(name, {})
        place.mkdir(exist_ok=True)
        for file, content in self._files(volume).items():
            (place / file).unlink(missing_ok=True)
            (place / file).write_bytes(content)
            (place / file).chmod(0o440 if "secret" in volume else 0o644)
        return place

    def _files(self, volume: Mapping[str, Any]) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        for source in [volume, *volume.get("projected", {}).get("sources", [])]:
            if "configMap" in source:
                data = self._cluster.config(self._namespace, source["configMap"]["name"])
                files |= _chosen({key: value.encode() for key, value in data.items()}, source["configMap"])
            if "secret" in source:
                held = source["secret"]
                files |= _chosen(self._cluster.secret(self._namespace, held["secretName"]), held)
            if "serviceAccountToken" in source:
                wanted = source["serviceAccountToken"]
                files[wanted["path"]] = self._cluster.token(self.pod, wanted.get("audience", "")).encode()
        return files

    def _placed(self, text: str, mounts: Mapping[str, Path]) -> str:
        paths = "|".join(map(re.escape, sorted(mounts, key=len, reverse=True)))
        text = re.sub(rf"(?<![\w/])({paths})(?=/|$)", lambda found: str(mounts[found[1]]), text)
        return self._cluster.located(text, self.pod)


def _chosen(data: Mapping[str, bytes], source: Mapping[str, Any]) -> dict[str, bytes]:
    items = source.get("items")
    return {one["path"]: data[one["key"]] for one in items} if items else dict(data)
