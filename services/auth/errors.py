"""What auth answers with when it does not do what was asked; and why it does not start.

Each text is for the one who asked. Where that could teach a stranger something, it is always the same.
"""

from mesh.core.errors import MeshError


class AuthError(MeshError):
    """Auth did not do what was asked."""


class RefusedError(AuthError):
    """The asker has not proved that it may. The text is the same for every reason; see the log for it."""


class LimitedError(AuthError):
    """The asker was refused, or joined, too often to be heard now, whatever it asks."""


class InvalidError(AuthError):
    """The request cannot be carried out by anybody: a bad name, number, certificate request or policy."""


class ConflictError(AuthError):
    """The request was overtaken: by a newer policy, by the use of a token."""


class MissingError(AuthError):
    """The request is about something that does not exist."""


class AuditError(AuthError):
    """The audit log cannot be written, so what would have to stand in it is not done."""


class ListenError(AuthError):
    """Auth cannot be reached at the address that it was given: one line, with what to do."""


class StartError(AuthError):
    """The data directory cannot be made or used: one line that says what is wrong and what to do."""
