"""Files of YAML with pods in them: each pod of each document gets its sidecar, all else stays as it says.

YAML is read as Kubernetes reads it, numbers such as 0440 included, but for aliases and for keys that come
twice, which are errors; and so written that Kubernetes reads every text as one. Comments are lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from mesh.inject import shape
from mesh.inject.errors import RefusedError
from mesh.inject.pod import inject
from mesh.inject.settings import Settings

_POD: Final = ("spec", "template")
#: Where the pod is, by kind: the path to what has ``metadata`` and ``spec``.
PLACES: Final[Mapping[str, tuple[str, ...]]] = {
    "Pod": (),
    "CronJob": ("spec", "jobTemplate", *_POD),
    **dict.fromkeys(
        ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "ReplicationController"), _POD
    ),
}


_TAG: Final = "tag:yaml.org,2002:"
#: What is read otherwise than by PyYAML: ``no``, a date and ``12:30`` are texts, and 1e3 is a number.
_READ: Final = {
    "bool": (r"true|false", "tf"),
    "int": (r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)", "-+0123456789"),
    "float": (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+0123456789."),
}
#: Texts that somebody else might not take for one if they are not quoted: numbers, times, y and n.
_AMBIGUOUS: Final = re.compile(r"[-+]?\.?[0-9].*|[yn]", re.DOTALL | re.IGNORECASE)


class _Loader(yaml.SafeLoader):
    """A safe loader that takes the words of YAML 1.2 for what they are there."""


_Loader.yaml_implicit_resolvers = {
    letter: [one for one in found if one[0] not in {f"{_TAG}{kind}" for kind in (*_READ, "timestamp")}]
    for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, (_pattern, _letters) in _READ.items():
    _Loader.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(rf"(?:{_pattern})\Z"), list(_letters))


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  the signature is the parent's
        return True

    def text(self, data: str) -> yaml.ScalarNode:
        style = "'" if _AMBIGUOUS.fullmatch(data) else None
        return self.represent_scalar(f"{_TAG}str", data, style)


_Dumper.add_representer(str, _Dumper.text)


def inject_text(text: str, namespace: str, settings: Settings) -> str:
    """Give the documents with sidecars in their pods; raise ``RefusedError`` with kind and name."""
    try:
        documents = list(_loaded(text))
    except yaml.YAMLError as error:
        raise RefusedError(f"not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise RefusedError("nested too deep: use manifests of Kubernetes") from None
    injected = [_injected(one, namespace, settings) for one in documents if one is not None]
    return yaml.dump_all(injected, Dumper=_Dumper, sort_keys=False, explicit_start=True)


def _loaded(text: str) -> Iterator[Any]:
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.AliasEvent):
            raise RefusedError(f"{_line(event.start_mark)}aliases are not supported: write it out")
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            _check_keys(node)
            yield loader.construct_document(node)
    finally:
        loader.dispose()


def _line(mark: Any) -> str:
    return f"line {mark.line + 1}: " if mark else ""


def _check_keys(node: yaml.Node | None) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise RefusedError(
                    f"{_line(key.start_mark)}a key that is no text: use manifests of Kubernetes"
                )
            if key.value in seen:
                raise RefusedError(f"{_line(key.start_mark)}{key.value!r:.80} is there twice: remove one")
            seen.add(key.value)
            _check_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item)


def _injected(document: Any, namespace: str, settings: Settings) -> Any:
    if not isinstance(document, dict):
        raise RefusedError("a document that is no mapping: use manifests of Kubernetes")
    kind = document.get("kind")
    if kind == "List":
        items = document.get("items") or []
        if not isinstance(items, list):
            raise RefusedError("items of a List have to be a list: use manifests of Kubernetes")
        return document | {"items": [_injected(item, namespace, settings) for item in items]}
    path = PLACES.get(str(kind))
    if path is None:
        return document
    metadata = document.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise RefusedError(f"{kind}: metadata has to be a mapping: use manifests of Kubernetes")
    name = str(metadata.get("name", "?"))
    try:
        _replace(document, path, name, str(metadata.get("namespace") or namespace), settings)
    except RefusedError as error:
        raise RefusedError(f"{kind} {name}: {error}") from None
    return document


def _replace(
    document: dict[str, Any], path: tuple[str, ...], name: str, namespace: str, settings: Settings
) -> None:
    holder = document
    for key in path:
        found = holder.get(key)
        if not isinstance(found, dict):
            raise RefusedError(f"{'.'.join(path)} is missing: see docs/kubernetes.md")
        holder = found
    if not path:
        document.update(inject(document, namespace, settings))
        return
    # A pod of a workload is named after it; that name is no part of the template.
    shape.check(holder)
    named = {**holder, "metadata": {**(holder.get("metadata") or {}), "generateName": f"{name}-"}}
    made = inject(named, namespace, settings)
    made["metadata"].pop("generateName")
    holder.update(made)


def load_settings(text: str) -> Settings:
    """Read a file of settings; raise ``RefusedError``."""
    try:
        documents = list(_loaded(text))
        if len(documents) != 1:
            raise RefusedError("settings are one document: see docs/kubernetes.md")
        return Settings.parse(documents[0])
    except (yaml.YAMLError, ValueError) as error:
        raise RefusedError(" ".join(str(error).split())) from None
