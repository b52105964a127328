"""The data directory, as far as the command needs it: the operator's credential, and where the mesh is.

``auth.db`` and ``kek`` beside them are auth's alone, and ``decisions.db`` is gatekeeper's. Which directory:
``--data``, else ``MESH_DATA``, else ``./mesh-data``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import click

from mesh.cli.errors import CliError, Exit
from mesh.core.join import JoinToken
from mesh.enrol import Vouched

_T = TypeVar("_T")

OPERATOR: Final = "operator.json"
ADDRESSES: Final = "addresses.json"
#: Of an operator in Kubernetes, in the place of the credential: a service-account token, auth's join key.
TOKEN: Final = "token"  # noqa: S105  a name
JOIN_KEY: Final = "join-key"
DECISIONS: Final = "decisions.db"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the mesh is, each as ``host:port``."""

    join: str
    auth: str
    gatekeeper: str


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """A trust domain's directory. Reading raises ``CliError`` with what to do."""

    path: Path

    def credential(self) -> JoinToken | Vouched:
        """Read the operator's credential, or what proves an operator to auth in Kubernetes."""
        if not (self.path / OPERATOR).exists():
            return self._vouched()
        return self._parsed(OPERATOR, lambda found: JoinToken.parse(found["token"]))

    def _vouched(self) -> Vouched:
        if not self._is_of_kubernetes():
            raise self._missing()
        join_key = self._text(JOIN_KEY, "take it from the ConfigMap that auth publishes")
        return Vouched(self._text(TOKEN, "make one with kubectl create token").strip(), join_key)

    def _is_of_kubernetes(self) -> bool:
        return any((self.path / name).exists() for name in (TOKEN, JOIN_KEY))

    def _text(self, name: str, do: str) -> str:
        try:
            return (self.path / name).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not ASCII"
            raise CliError(f"cannot read {self.path / name}: {why}: {do}", Exit.DATA) from None

    def addresses(self) -> Addresses:
        """Read where the mesh that runs on this directory is."""
        if not (self.path / ADDRESSES).exists():
            raise self._nowhere()
        return self._parsed(
            ADDRESSES, lambda found: Addresses(found["join"], found["auth"], found["gatekeeper"])
        )

    def _nowhere(self) -> CliError:
        if (self.path / OPERATOR).exists():
            text = f"the mesh of {self.path} is not running: start it with mesh up --data {self.path}"
            return CliError(text, Exit.UNREACHABLE)
        if self._is_of_kubernetes():
            text = f"no {self.path / ADDRESSES}: write there where the forwarded ports are (helm get notes)"
            return CliError(text, Exit.DATA)
        return self._missing()

    def _missing(self) -> CliError:
        if any((self.path / name).exists() for name in ("kek", ADDRESSES)):
            return CliError(
                f"{self.path / OPERATOR} is missing: put back a copy of it, the operator's credential",
                Exit.DATA,
            )
        return CliError(
            f"no trust domain in {self.path}: make one with mesh init, or name it with --data", Exit.DATA
        )

    def _parsed(self, name: str, parse: Callable[[dict[str, str]], _T]) -> _T:
        path = self.path / name
        try:
            return parse(json.loads(path.read_bytes()))
        except OSError as error:
            raise CliError(f"cannot read {path}: {error.strerror}", Exit.DATA) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CliError(f"{path} is damaged: put back a copy of {self.path}", Exit.DATA) from None


data_option = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="MESH_DATA",
    default="mesh-data",
    show_default=True,
    help="The trust domain's directory.",
)
