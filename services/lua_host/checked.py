"""The host's own reading of every message, whichever way it goes.

What passes is parsed by its descriptor, within bounds of size and depth, without unknown fields, and written
anew: so what was judged is what goes on. ``strict`` is for what a worker says. Its codec writes no unknown
fields: whoever does is not the codec.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.message_factory import GetMessageClass

from services.lua_host.shapes import (
    LEVEL,
    MAX_DEPTH,
    MAX_LOOKS,
    NotTextError,
    TooDeepError,
    TooManyError,
    shape_of,
)

#: Names of missing fields that are told.
_FEW: Final = 3


class BadMessageError(ValueError):
    """Bytes that are no message of their type. The text names the type and says what is wrong."""


class Checker:
    """Reads messages of one type. A message is level 1; messages and entries of maps in it add one each."""

    def __init__(self, descriptor: Descriptor, max_bytes: int, max_depth: int) -> None:
        """Take the type, and how many bytes and levels a message has at most."""
        if not 1 <= max_depth <= MAX_DEPTH:
            msg = f"max_depth has to lie between 1 and {MAX_DEPTH}"
            raise ValueError(msg)
        self.name: Final = descriptor.full_name
        self.max_bytes, self.max_depth = max_bytes, max_depth
        # Taken from the class: on a message, a field could have their names.
        kind: Any = GetMessageClass(descriptor)
        self._parse, self._write = kind.FromString, kind.SerializeToString
        self._discard, self._missing = kind.DiscardUnknownFields, kind.FindInitializationErrors
        self._shape = shape_of(descriptor)
        self._can_be_deep = self._shape.height >= max_depth

    def clean(self, payload: bytes, *, strict: bool = False) -> bytes:
        """Give a message as the host writes it; raise ``BadMessageError``.

        ``strict`` refuses unknown fields instead of dropping them.
        """
        if len(payload) > self.max_bytes:
            raise self._bad(f"{len(payload)} bytes, and {self.max_bytes} are the limit")
        message = self._parsed(payload)
        if self._shape.loose or (self._can_be_deep and len(payload) >= LEVEL * self.max_depth):
            self._look(message)
        self._discard(message)
        written = self._written(message)
        if strict and written != payload:
            # The codec writes what the library writes, but for the order of maps.
            whole = self._written(self._parsed(payload))
            if len(whole) != len(written):
                raise self._bad("unknown fields")
        if len(written) > self.max_bytes:
            raise self._bad(f"{len(written)} bytes when written out, and {self.max_bytes} are the limit")
        return written

    def _parsed(self, payload: bytes) -> Message:
        try:
            message: Message = self._parse(payload)
        except DecodeError as error:
            said = str(error).rpartition(": ")[2]
            raise self._bad(said[:1].lower() + said[1:]) from None
        return message

    def _written(self, message: Message) -> bytes:
        try:
            written: bytes = self._write(message, deterministic=True)
        except EncodeError:
            missing = ", ".join(self._missing(message)[:_FEW])
            raise self._bad(f"{missing:.200} is required, and not there") from None
        return written

    def _look(self, message: Message) -> None:
        try:
            self._shape.look(message, self.max_depth - 1)
        except TooManyError:
            raise self._bad(f"more than {MAX_LOOKS} messages in it") from None
        except TooDeepError:
            raise self._bad(f"nested deeper than {self.max_depth} levels") from None
        except NotTextError as error:
            raise self._bad(f"{error}: has to be UTF-8") from None

    def _bad(self, what: str) -> BadMessageError:
        return BadMessageError(f"{self.name}: {what}")
