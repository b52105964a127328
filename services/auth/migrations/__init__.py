"""How the tables came to be, one revision after the other, and bringing a database up to the newest.

A database that is newer than this program is left alone: what it means is not known here.
"""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from services.auth.errors import StartError

_HERE: Final = Path(__file__).parent


def upgrade(connection: Connection, *, new: bool = False) -> None:
    """Bring a database to the newest revision.

    Raises ``StartError`` if it is of a revision not known here, or of none and not ``new``.
    """
    config = Config()
    # Percent signs are the configuration's own; a path may hold some.
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
    heads = MigrationContext.configure(connection).get_current_heads()
    if not heads and not new:
        raise StartError("the database holds nothing of a mesh: restore it from a backup")
    if not known.issuperset(heads):
        raise StartError(
            f"the database is of a newer sealmesh (schema {', '.join(heads)}): start that version or newer"
        )
    command.upgrade(config, "head")
