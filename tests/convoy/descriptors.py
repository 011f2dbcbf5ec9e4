"""Reads the fields and methods of a generated protobuf module, in a form that JSON can carry between processes."""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor, FileDescriptor

Facts = dict[str, list[int]]


def read_fields(file: FileDescriptor) -> Facts:
    """Number, type and repetition of every field, and the number of every enum value, by full name."""
    found: Facts = {}
    messages: list[Descriptor] = list(file.message_types_by_name.values())
    while messages:
        message = messages.pop()
        messages.extend(message.nested_types)
        for field in message.fields:
            found[field.full_name] = [field.number, field.type, int(field.is_repeated)]
    for enum in file.enum_types_by_name.values():
        for value in enum.values:
            found[f"{enum.full_name}.{value.name}"] = [value.number]
    return found


def read_methods(file: FileDescriptor, service: str) -> Facts:
    """Whether the client and the server side of every method is a stream, by the method's signature."""
    return {
        f"{method.full_name}({method.input_type.name}) {method.output_type.name}": [
            int(method.client_streaming),
            int(method.server_streaming),
        ]
        for method in file.services_by_name[service].methods
    }
