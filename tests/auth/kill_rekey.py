"""Script of ``test_rekey``: a rotation of the KEK, killed at every step. Prints how many there were."""

from __future__ import annotations

import sys
from pathlib import Path

from mesh.core.keys import Key
from services.auth.directory import DataDirectory
from services.auth.records import CHECK, token_place
from services.auth.rekey import rotate_kek
from services.auth.vault import kek_id
from tests.auth.killed import at_every_step
from tests.auth.test_secrets import everything, spellings

NOW_MS = 1_767_225_700_000


def rotate(path: Path) -> None:
    with DataDirectory(path) as directory:
        rotate_kek(directory, None, "", NOW_MS)


def check(path: Path) -> None:
    """One KEK is in force, alone in its file; everything opens with it; rotating again works."""
    with DataDirectory(path) as directory:
        _opens(directory)
        directory.store.logs.recover(NOW_MS)
    now = Key((path / "kek").read_bytes())
    assert {file.name for file in path.glob("kek*")} == {"kek"}
    if now != OLD:
        assert not any(spelling in everything(path, ()) for spelling in spellings(OLD.reveal()))
        assert kek_id(OLD) not in everything(path, ("actions-00000000.log",))
    rotate(path)
    assert Key((path / "kek").read_bytes()) not in (now, OLD)
    with DataDirectory(path) as directory:
        _opens(directory)


def _opens(directory: DataDirectory) -> None:
    vault, store = directory.vault, directory.store
    [token] = store.tokens()
    vault.open(token.sealed, token_place(token.id, token.kind, token.service, token.expires_ms))
    [secret] = store.keys.secrets(CHECK)
    assert vault.is_under(secret.sealed)


if __name__ == "__main__":
    PATH = Path(sys.argv[1])
    OLD = Key((PATH / "kek").read_bytes())
    sys.stdout.write(f"{at_every_step(PATH, rotate, check)}\n")
