"""Files of YAML on the command line: read, and every error told as one line: file, line, column, what to do.

How YAML is read is ``mesh.strict_yaml``'s business.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from mesh.cli.errors import CliError, Exit
from mesh.core.document import MAX_DOCUMENT
from mesh.strict_yaml import YamlError, compose, plain


def read_text(name: str) -> str:
    """Read a file, or standard input for ``-``; raise ``CliError``."""
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


@contextmanager
def one_line(name: str) -> Iterator[None]:
    """Turn whatever is wrong with the YAML of a file into one line with its place."""
    try:
        yield
    except YamlError as error:
        where = f"{name}:{error.line}:{error.column}" if error.line else name
        raise CliError(f"{where}: {error}", Exit.REFUSED) from None
    except RecursionError:
        raise CliError(f"{name}: nested too deeply: see docs/policy.md", Exit.REFUSED) from None


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_DOCUMENT + 1)


def load_yaml(text: str) -> tuple[yaml.Node, object]:
    """Give the node at the root, which knows the places, and the value; raise ``YamlError``."""
    root = compose(text)
    if root is None:
        raise YamlError("is empty: see docs/policy.md")
    return root, plain(root)
