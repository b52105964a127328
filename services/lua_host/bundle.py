"""A Lua service as its directory holds it: manifest, script and protos, cross-checked. Nothing of it is run.

Who has a ``Bundle`` has a service whose parts fit together. Whether its script makes sense is for a worker to
say (``inspection``).
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from services.lua_host.library import instead
from services.lua_host.limits import Number
from services.lua_host.manifest import Manifest
from services.lua_host.problems import Problem, ProblemsError
from services.lua_host.protos import Protos
from services.lua_host.strict_toml import MAX_DOCUMENT

MANIFEST: Final = "service.toml"
#: The largest script, in bytes.
MAX_SCRIPT: Final = 1024 * 1024
#: How bytecode begins.
_BYTECODE: Final = b"\x1b"
_T = TypeVar("_T")


class BundleError(ProblemsError):
    """A directory that holds no service, with everything that is wrong in it."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A service's parts."""

    manifest: Manifest
    script: bytes
    """Lua source text, UTF-8."""
    protos: Protos

    @classmethod
    def load(cls, directory: Path, includes: Sequence[Path] = ()) -> Bundle:
        """Read a service's directory; raise ``BundleError``.

        ``includes`` are the operator's: where else protos may be.
        """
        problems: list[Problem] = []
        manifest = _tried(
            problems, lambda: Manifest.parse(read_inside(directory, MANIFEST, MAX_DOCUMENT), MANIFEST)
        )
        if manifest is None:
            raise BundleError(problems)
        script = _tried(problems, lambda: _script(directory, manifest))
        protos = _tried(problems, lambda: Protos.load(directory, manifest, includes))
        if protos is not None:
            problems += [*_crossed_serves(manifest, protos), *_crossed_calls(manifest, protos)]
        if problems or script is None or protos is None:
            raise BundleError(sorted(problems))
        return cls(manifest, script, protos)

    def within(self, caps: Mapping[str, Number]) -> Bundle:
        """Give the same service with its limits lowered to what an operator allows at most."""
        return replace(self, manifest=replace(self.manifest, limits=self.manifest.limits.within(caps)))


def _tried(problems: list[Problem], read: Callable[[], _T]) -> _T | None:
    try:
        return read()
    except ProblemsError as error:
        problems += error.problems
    return None


def read_inside(directory: Path, name: str, most: int) -> bytes:
    """Read a file of at most so many bytes that lies in a service's directory; raise ``ProblemsError``."""
    path = directory / name
    if not path.is_file():
        raise _wrong(name, "no such file")
    if not path.resolve().is_relative_to(directory.resolve()):
        raise _wrong(name, "leads out of the service's directory: put the file itself there")
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise _wrong(name, f"cannot be read: {error.strerror}") from None
    if len(content) > most:
        raise _wrong(name, f"larger than {most} bytes")
    return content


def _script(directory: Path, manifest: Manifest) -> bytes:
    script = read_inside(directory, manifest.script, MAX_SCRIPT)
    if script.startswith(_BYTECODE):
        raise _wrong(manifest.script, "bytecode: a script has to be text")
    if script.startswith(BOM_UTF8):
        raise _wrong(manifest.script, "starts with a byte order mark: save it without", 1)
    try:
        script.decode()
    except UnicodeDecodeError as error:
        line = script.count(b"\n", 0, error.start) + 1
        raise _wrong(
            manifest.script, "not UTF-8: save it as UTF-8, and write other bytes as \\xXX", line
        ) from None
    return script


def _crossed_serves(manifest: Manifest, protos: Protos) -> Iterator[Problem]:
    for service in manifest.serves:
        methods = [rpc for rpc in protos.methods.values() if rpc.service == service]
        if service not in protos.services:
            what = f"no service {service} in the protos{instead(service, tuple(protos.services))}"
            yield manifest.problem(what, "serves", item=service)
        elif not methods:
            yield manifest.problem(f"{service} has no methods", "serves", item=service)
        for rpc in methods:
            if rpc.client_streaming:
                what = f"{rpc.name} takes a stream of requests: a script serves methods with one request"
                yield Problem(rpc.file, rpc.line, what)


def _crossed_calls(manifest: Manifest, protos: Protos) -> Iterator[Problem]:
    for grant in manifest.calls:
        for method in grant.methods:
            rpc = protos.methods.get(method.text)
            path = ("calls", grant.service.text)
            if rpc is None:
                what = f"no method {method} in the protos{instead(method.text, tuple(protos.methods))}"
                yield manifest.problem(what, *path, item=method.text)
            elif rpc.client_streaming:
                what = f"{method} takes a stream of requests: a script calls methods with one request"
                yield manifest.problem(what, *path, item=method.text)


def _wrong(file: str, text: str, line: int = 0) -> ProblemsError:
    return ProblemsError([Problem(file, line, text)])
