"""Message types for tests, made from few words: without files, and without protoc."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_LABELS = {name.removeprefix("LABEL_").lower(): number for name, number in FieldDescriptorProto.Label.items()}
_TYPES = {name.removeprefix("TYPE_").lower(): number for name, number in FieldDescriptorProto.Type.items()}


def message(proto: FileDescriptorProto | DescriptorProto, name: str, *fields: str) -> DescriptorProto:
    """Add a type. Each field is ``[label] type name``, numbered from 1; types with a dot are messages.

    ``map key value name`` is a map.
    """
    types = proto.nested_type if isinstance(proto, DescriptorProto) else proto.message_type
    added = types.add(name=name)
    for number, field in enumerate(fields, 1):
        *label, kind, called = field.split()
        if label[:1] == ["map"]:
            entry = message(added, f"{called.capitalize()}Entry", f"{label[1]} key", f"{kind} value")
            entry.options.map_entry = True
            label, kind = ["repeated"], f".t.{name}.{entry.name}"
        one = added.field.add(name=called, number=number, label=_LABELS[label[0] if label else "optional"])
        one.type = _TYPES["message" if kind.startswith(".") else kind]
        if kind.startswith("."):
            one.type_name = kind
    return added


def file(syntax: str = "proto3") -> FileDescriptorProto:
    """Give an empty file of package ``t``."""
    return FileDescriptorProto(name=f"{syntax}.proto", package="t", syntax=syntax)


def kind(proto: FileDescriptorProto, name: str) -> Descriptor:
    """Give a type of a file."""
    pool = DescriptorPool()
    pool.AddSerializedFile(proto.SerializeToString())
    return pool.FindMessageTypeByName(f"t.{name}")


def python(descriptor: Descriptor) -> Any:
    """Give the class of a type."""
    return GetMessageClass(descriptor)
