"""What a handler says of how its call is to end: status, text and trailing metadata.

It is said in gRPC's own way, and nothing of it leaves before the call ends (``ending``).
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

import grpc

from mesh.core.metadata import Entries, checked_entries, pushbacks
from mesh.rpc.status import Outcome

_C = grpc.StatusCode
_BY_NUMBER: Final = {code.value[0]: code for code in _C}


class Saying(grpc.aio.ServicerContext[Any, Any]):
    """The part of gRPC's ``ServicerContext`` that says it."""

    def __init__(self) -> None:
        """Start with nothing said, which is OK."""
        self._code: Any = None
        self._details = ""
        self._trailing: Entries = ()
        self.pushback: tuple[str, ...] = ()
        """What the handler says of the caller's next attempt."""
        self.aborted = False

    def said(self) -> Outcome:
        """Give what was said so far."""
        code = self._code
        if not isinstance(code, _C):
            code = _C.OK if code is None else _BY_NUMBER.get(code, _C.UNKNOWN)
        return Outcome(code, self._details, trailing=self._trailing)

    def end_with(self, code: Any, details: str) -> None:
        """Say that the call ends now; whoever says it raises."""
        self._code, self._details, self.aborted = code, details, True

    async def abort(
        self,
        code: Any,
        details: str = "",
        trailing_metadata: Any = (),
    ) -> NoReturn:
        """End the call with an error."""
        if code in (_C.OK, 0):
            msg = "abort is for errors: OK is said by returning"
            raise grpc.aio.UsageError(msg)
        if trailing_metadata:
            self._take(trailing_metadata)
        self.end_with(code, details or self._details)
        raise grpc.aio.AbortError(details)

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a status, as ``rpc_status.to_status`` makes it."""
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Say what goes with the status."""
        self._take(trailing_metadata)

    def _take(self, trailing_metadata: Any) -> None:
        said = tuple(trailing_metadata or ())
        self._trailing, self.pushback = checked_entries(said), pushbacks(said)

    def trailing_metadata(self) -> Any:
        """Give what was said so far."""
        return self._trailing

    def set_code(self, code: Any) -> None:
        """Say the status that the call will end with."""
        self._code = code

    def set_details(self, details: str) -> None:
        """Say the text of the status."""
        self._details = details

    def code(self) -> Any:
        """Give the status that was said so far."""
        return self._code

    def details(self) -> str:
        """Give the text that was said so far."""
        return self._details
