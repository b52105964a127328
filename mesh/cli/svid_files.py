"""A certificate with its key as files, for a program that reads such: an Envoy, or any TLS client or server.

    DIR/current/svid.pem     certificate chain, leaf first
    DIR/current/key.pem      private key, mode 0600
    DIR/current/bundle.pem   whom to trust
    DIR/sds-svid.yaml        the first two, as a secret for an Envoy (SDS from files)
    DIR/sds-bundle.yaml      the third

``current`` is a link to a directory of its own for each certificate. It is swapped, so that who follows it
once reads files that fit together; an Envoy watches DIR for that, and reads them anew. DIR is its owner's
alone. The directory before the current one stays until the next swap, for whoever is reading it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

import yaml

from mesh.rpc.svid import Svid

CURRENT: Final = "current"
_PREFIX: Final = ".svid-"
_SECRET: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105  a type


class SvidFiles:
    """The files in one directory."""

    def __init__(self, directory: Path) -> None:
        """Make the directory if there is none; raise ``OSError`` if others could change or read it."""
        self._directory = directory.absolute()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self._directory.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            msg = f"others have access to {directory}: choose a directory of mode 0700 that is yours"
            raise OSError(msg)

    def write(self, svid: Svid) -> None:
        """Put a certificate in the place of the one before; raise ``OSError`` and leave that if it fails."""
        made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._directory))
        contents = {"svid.pem": svid.chain_pem, "key.pem": svid.key_pem, "bundle.pem": svid.bundle_pem}
        try:
            for name, content in contents.items():
                _write(made / name, content)
            before = self._swap(made)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        self._clear({made.name, before})
        self._write_secrets(made)

    def _swap(self, made: Path) -> str:
        current = self._directory / CURRENT
        before = str(current.readlink()) if current.is_symlink() else ""
        link = made / CURRENT
        link.symlink_to(made.name)
        link.replace(current)
        return before

    def _write_secrets(self, made: Path) -> None:
        for name, secret in self._secrets().items():
            path, content = self._directory / name, yaml.safe_dump({"resources": [secret]}).encode()
            if not path.exists() or path.read_bytes() != content:
                _write(made / name, content)
                (made / name).replace(path)

    def _clear(self, kept: set[str]) -> None:
        for path in self._directory.glob(f"{_PREFIX}*"):
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def _secrets(self) -> dict[str, Any]:
        current = self._directory / CURRENT
        watched = {"watched_directory": {"path": str(self._directory)}}
        pair = {
            "certificate_chain": {"filename": str(current / "svid.pem")},
            "private_key": {"filename": str(current / "key.pem")},
        }
        roots = {"trusted_ca": {"filename": str(current / "bundle.pem")}}
        return {
            "sds-svid.yaml": {"@type": _SECRET, "name": "svid", "tls_certificate": {**pair, **watched}},
            "sds-bundle.yaml": {
                "@type": _SECRET,
                "name": "bundle",
                "validation_context": {**roots, **watched},
            },
        }


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
