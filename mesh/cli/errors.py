"""What the command says when something is wrong: one line on stderr, and an exit status that tells the kind.

``error: <what happened>: <what to do> (<where to read on>)``. Never a traceback, unless
``MESH_DEBUG`` is set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import IntEnum
from functools import partial
from typing import Any, Final, NoReturn

import click
import grpc

from mesh.cli.output import harmless
from mesh.core.errors import MeshError
from mesh.enrol import JoinError


class Exit(IntEnum):
    """Exit statuses. ``mesh run`` gives that of the app instead, once that has started."""

    FAILED = 1
    """It went wrong."""
    USAGE = 2
    """The command line makes no sense."""
    REFUSED = 3
    """Understood, and refused: by policy, by auth, or because the document is no policy."""
    UNREACHABLE = 4
    """The mesh is not running, or does not answer."""
    DATA = 5
    """The data directory is missing, damaged, in use or not ours to read."""
    TAMPERED = 6
    """The audit log is not whole."""
    INTERRUPTED = 130
    """Ctrl-C."""


class CliError(click.ClickException):
    """One line for the person at the terminal, and the exit status."""

    def __init__(self, message: str, status: int = Exit.FAILED) -> None:
        """Take what happened and what to do."""
        super().__init__(message)
        vars(self)["exit_code"] = int(status)  # click calls it a class variable


#: Where to read on about errors of a kind; about the others, in the section of the command.
PAGES: Final[dict[int, str]] = {
    Exit.UNREACHABLE: "docs/troubleshooting.md#ports",
    Exit.DATA: "docs/troubleshooting.md#store",
    Exit.TAMPERED: "docs/audit.md#what-verify-finds",
}
COMMANDS: Final = "docs/cli.md"

_C = grpc.StatusCode
_UNREACHABLE = frozenset({_C.UNAVAILABLE, _C.DEADLINE_EXCEEDED, _C.CANCELLED})
_REFUSED = frozenset(
    {
        _C.PERMISSION_DENIED,
        _C.UNAUTHENTICATED,
        _C.INVALID_ARGUMENT,
        _C.FAILED_PRECONDITION,
        _C.ALREADY_EXISTS,
        _C.NOT_FOUND,
        _C.ABORTED,
        _C.OUT_OF_RANGE,
    }
)


def told(error: Exception) -> CliError:
    """Give what to say about an error of the mesh, of gRPC or of the system."""
    if isinstance(error, CliError):
        return error
    if isinstance(error, grpc.aio.AioRpcError):
        return CliError(error.details() or str(error.code()), _status(error.code()))
    if isinstance(error, JoinError):
        return CliError(str(error), Exit.REFUSED)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return CliError(f"{where}{error.strerror.lower()}")
    if isinstance(error, (MeshError, OSError, ValueError)):
        return CliError(str(error))
    return CliError(
        f"unexpected {type(error).__name__}: {error}: this is a fault of mesh, set MESH_DEBUG=1 to see where"
    )


def _status(code: grpc.StatusCode) -> Exit:
    if code in _UNREACHABLE:
        return Exit.UNREACHABLE
    return Exit.REFUSED if code in _REFUSED else Exit.FAILED


class OneLineGroup(click.Group):
    """A group whose every error is one line."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, and exit with the status of whatever happened."""
        command = next((one for one in (sys.argv[1:] if args is None else args) if one in self.commands), "")
        fail = partial(_fail, command)
        run = partial(super().main, args, prog_name or "mesh", complete_var, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        try:
            result: Any = run()
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(Exit.USAGE)
        except click.UsageError as error:
            fail(_usage(error), Exit.USAGE)
        except click.exceptions.Exit as left:
            sys.exit(left.exit_code)
        except click.ClickException as error:
            fail(error.format_message(), error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            sys.exit(Exit.INTERRUPTED)
        except BrokenPipeError:
            # Whoever read our output has had enough. Without this Python complains once more when it flushes.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(Exit.FAILED)
        except Exception as error:
            if os.environ.get("MESH_DEBUG"):
                raise
            said = told(error)
            fail(said.message, said.exit_code)
        sys.exit(result if isinstance(result, int) else 0)


def _usage(error: click.UsageError) -> str:
    see = f"{error.ctx.command_path} --help" if error.ctx else "mesh --help"
    said = error.format_message().rstrip(".")
    return f"{said[:1].lower()}{said[1:]}: see {see}"


def page(command: str, status: int) -> str:
    """Give where to read on about an error of a command of ``mesh``; empty: of the command line."""
    return PAGES.get(status, f"{COMMANDS}#mesh-{command}" if command else COMMANDS)


def _fail(command: str, message: str, status: int) -> NoReturn:
    said = harmless(" ".join(message.split()))
    if ".md#" not in said:
        said = f"{said} ({page(command, status)})"
    print(f"error: {said}", file=sys.stderr)  # noqa: T201  not click.echo: no colour, ever
    sys.exit(status)
