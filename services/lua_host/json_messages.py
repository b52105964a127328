"""Messages as people write and read them: by proto3's JSON mapping to bytes, and back to lines."""

from __future__ import annotations

from typing import Any

import yaml
from google.protobuf import json_format, text_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message_factory import GetMessageClass


class NotAMessageError(ValueError):
    """A value that is no message of its type, in one line."""


def to_bytes(value: Any, kind: Descriptor) -> bytes:
    """Give the message that a value says, with required fields or without; raise ``NotAMessageError``."""
    message: Any = GetMessageClass(kind)()
    # Some of Google's own are not objects in JSON: a Timestamp is a text.
    if not isinstance(value, dict) and not kind.full_name.startswith("google.protobuf."):
        raise NotAMessageError("a message has to be a mapping, {field: value}")
    try:
        json_format.ParseDict(value, message, descriptor_pool=kind.file.pool)
    except json_format.ParseError as error:
        said = str(error).splitlines()[0].rstrip(".")
        raise NotAMessageError(f"{said[:1].lower()}{said[1:]:.300}") from None
    written: bytes = type(message).SerializePartialToString(message)
    return written


def to_lines(payload: bytes, kind: Descriptor) -> list[str]:
    """Give a message as lines of YAML, as it could be written in a case."""
    message = GetMessageClass(kind).FromString(payload)
    try:
        value = json_format.MessageToDict(
            message, preserving_proto_field_name=True, descriptor_pool=kind.file.pool
        )
    except (TypeError, json_format.Error):  # an Any of a type that is not known here
        return text_format.MessageToString(message).splitlines()
    shown: str = yaml.safe_dump(value, allow_unicode=True, sort_keys=False)
    return shown.splitlines()
