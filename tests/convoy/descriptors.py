"""Facts of a generated protobuf module, as plain JSON."""

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
    """Which sides of every method are streams, by the method's signature."""
    return {
        f"{one.full_name}({one.input_type.name}) {one.output_type.name}": [
            int(one.client_streaming),
            int(one.server_streaming),
        ]
        for one in file.services_by_name[service].methods
    }
