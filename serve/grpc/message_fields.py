"""Protobuf from outside: the fields of a large message are counted before it is parsed.

Two bytes make an empty sub-message of a hundred, so that 64 MiB become gigabytes in one call that holds the event loop. The
walk costs a step for each field, which no honest message has many of, and passes over texts and data without reading them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from convoy.errors import ConvoyError, InvalidInput, TooLarge

SMALL_BYTES = 64 * 1024  # a few megabytes at worst
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types, https://protobuf.dev/programming-guides/encoding/
MAX_TAG = 2**32 - 1
ENVELOPE_FIELDS = 4096  # of a request beside its images: outputs, parameters, fields that nobody knows

Parsed = TypeVar("Parsed", bound=Message)


class BoundedServices:
    """What generated code adds servicers to: a server whose requests are parsed within a limit of fields.

    A servicer's methods get the message, or the error that refuses it.
    """

    def __init__(self, server: grpc.aio.Server, most_fields: int) -> None:
        self._server: Any = server  # whose stubs lack what generated code calls
        self._most_fields = most_fields

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler[Any, Any]]) -> None:
        """Nothing: generated code adds every method in both ways."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        methods = Default().FindServiceByName(service).methods_by_name
        limited = {
            name: handler._replace(
                request_deserializer=bounded(GetMessageClass(methods[name].input_type), self._most_fields)
            )
            for name, handler in handlers.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, limited),))
        self._server.add_registered_method_handlers(service, limited)


def bounded(kind: type[Parsed], most_fields: int) -> Callable[[bytes], Parsed | ConvoyError]:
    """A deserializer of messages of at most `most_fields` fields. It returns its error: a server would only log one."""

    def parse(data: bytes) -> Parsed | ConvoyError:
        try:
            if len(data) > SMALL_BYTES:
                check_fields(kind.DESCRIPTOR, data, most_fields)
            return kind.FromString(data)
        except ConvoyError as error:
            return error
        except DecodeError as error:
            return InvalidInput(f"the message is not a {kind.DESCRIPTOR.full_name}: {error}")

    return parse


def check_fields(descriptor: Any, data: bytes, most: int) -> None:
    """Raises TooLarge when a message and those in it have more than `most` fields, InvalidInput for what is none."""
    parts = [(descriptor, 0, len(data))]
    found = 0
    while parts:
        part, position, end = parts.pop()
        while position < end:
            found += 1
            if found > most:
                raise TooLarge(
                    f"the message has more than {most} fields, which limits.images_per_request allows; "
                    "send fewer images at a time, and tensors as raw contents"
                )
            tag, position = _varint(data, position, end)
            if tag > MAX_TAG:  # whose field number others might read differently
                raise InvalidInput("the message has a field number beyond those of protobuf")
            start, position = _after(data, tag & 7, position, end)
            field = part.fields_by_number.get(tag >> 3)
            if tag & 7 == BYTES and field is not None and field.message_type is not None:
                parts.append((field.message_type, start, position))


def _after(data: bytes, wire_type: int, position: int, end: int) -> tuple[int, int]:
    """Where the content of a field starts and stops."""
    start = position
    if wire_type == BYTES:
        size, start = _varint(data, position, end)
        stop = start + size
    elif wire_type == VARINT:
        _, stop = _varint(data, position, end)
    elif wire_type in (FIXED32, FIXED64):
        stop = position + (4 if wire_type == FIXED32 else 8)
    else:
        raise InvalidInput(f"the message has a field of wire type {wire_type}, which nobody sends")
    if stop > end:
        raise InvalidInput("the message is cut short")
    return start, stop


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise InvalidInput("the message is cut short")
