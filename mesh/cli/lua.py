"""``mesh lua``: services in Lua.

    lua_new   new            a starter
    lua_try   check, test    what is wrong with a service; what it does with the calls of its tests
    lua_run   run            services in the mesh

``bundles`` has how they name and read a service's directory.
"""

from __future__ import annotations

import click

from mesh.cli.lua_new import new
from mesh.cli.lua_run import run
from mesh.cli.lua_try import check, test


@click.group()
def lua() -> None:
    """Make, check, test and run services in Lua."""


for _command in (new, check, test, run):
    lua.add_command(_command)
