"""Policy files: YAML for people, JSON for the mesh.

How YAML is read is ``mesh.strict_yaml``'s business. What the document means is for ``mesh.core.policy`` to
judge, here and again in auth.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from mesh.cli.errors import CliError, Exit
from mesh.core.document import MAX_DOCUMENT, PolicyError
from mesh.core.policy import Policy
from mesh.strict_yaml import YamlError, compose, plain


def read_policy(name: str) -> bytes:
    """Read a policy from a file, or from standard input for ``-``, as canonical JSON.

    Raises ``CliError`` in one line: where in the file, or which field, and what to do.
    """
    document = _read(name)
    try:
        return Policy.parse(json.dumps(_load(document))).encode()
    except YamlError as error:
        where = f"{name}:{error.line}:{error.column}" if error.line else name
        raise CliError(f"{where}: {error}", Exit.REFUSED) from None
    except PolicyError as error:
        raise CliError(f"{name}: {error}", Exit.REFUSED) from None
    except RecursionError:
        raise CliError(f"{name}: nested too deeply", Exit.REFUSED) from None


def write_policy(document: bytes) -> str:
    """Give a policy as YAML, to be read, changed and applied again."""
    shown: str = yaml.safe_dump(json.loads(document), sort_keys=False, default_flow_style=False, width=110)
    return shown


def _read(name: str) -> str:
    try:
        document = sys.stdin.buffer.read(MAX_DOCUMENT + 1) if name == "-" else _start_of(Path(name))
        text = document.decode()
    except OSError as error:
        raise CliError(f"cannot read {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CliError(f"{name}: not UTF-8: save it as UTF-8", Exit.REFUSED) from None
    if len(document) > MAX_DOCUMENT:
        raise CliError(f"{name}: larger than {MAX_DOCUMENT} bytes: use wildcards", Exit.REFUSED)
    return text


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_DOCUMENT + 1)


def _load(text: str) -> object:
    root = compose(text)
    if root is None:
        raise YamlError("is empty: write 'services: {}' to deny everything")
    return plain(root)
