"""Untrusted protobuf: the fields of a large message are counted before it is parsed.

An empty sub-message takes two bytes on the wire and about a hundred in memory, so 64 MiB would become gigabytes, in one call
that blocks the event loop. Counting costs one step per field, of which a regular message has few, and skips strings and bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from convoy.errors import ConvoyError, InvalidInput, TooLarge

SMALL_BYTES = 64 * 1024  # parsed without counting: at worst a few megabytes of objects
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types, https://protobuf.dev/programming-guides/encoding/
MAX_TAG = 2**32 - 1
ENVELOPE_FIELDS = 4096  # allowed besides the images: outputs, parameters, unknown fields

Parsed = TypeVar("Parsed", bound=Message)


class BoundedServices:
    """Stands in for the server when generated code registers servicers, and bounds the fields of their requests.

    A servicer's methods receive the message, or the ConvoyError that refuses it: a deserializer cannot send a status.
    """

    def __init__(self, server: grpc.aio.Server, most_fields: int) -> None:
        self._server: Any = server  # its type stubs lack the methods that generated code calls
        self._most_fields = most_fields

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler[Any, Any]]) -> None:
        """Ignored: generated code registers every method a second time, through the call below."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Registers the methods of a service with bounded deserializers."""
        methods = Default().FindServiceByName(service).methods_by_name
        bounded_handlers = {
            name: handler._replace(
                request_deserializer=bounded(GetMessageClass(methods[name].input_type), self._most_fields)
            )
            for name, handler in handlers.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, bounded_handlers),))
        self._server.add_registered_method_handlers(service, bounded_handlers)


def bounded(kind: type[Parsed], most_fields: int) -> Callable[[bytes], Parsed | ConvoyError]:
    """A deserializer of messages with at most `most_fields` fields. Returns its errors, since a server only logs raised ones."""

    def parse(data: bytes) -> Parsed | ConvoyError:
        try:
            if len(data) > SMALL_BYTES:
                check_fields(kind.DESCRIPTOR, data, most_fields)
            return kind.FromString(data)
        except ConvoyError as error:
            return error
        except DecodeError as error:
            return InvalidInput(f"the message is not a valid {kind.DESCRIPTOR.full_name}: {error}")

    return parse


def check_fields(descriptor: Any, data: bytes, limit: int) -> None:
    """Raises TooLarge if a message, with its sub-messages, has more than `limit` fields; InvalidInput if it is malformed."""
    messages = [(descriptor, 0, len(data))]
    fields = 0
    while messages:
        message, position, end = messages.pop()
        while position < end:
            fields += 1
            if fields > limit:
                raise TooLarge(
                    f"the message has more than the {limit} fields that limits.images_per_request allows; "
                    "send fewer images at a time, and tensors as raw contents"
                )
            tag, position = _varint(data, position, end)
            if tag > MAX_TAG:  # parsers differ in how they truncate such a field number
                raise InvalidInput("the message has a field number beyond the range of protobuf")
            start, position = _content(data, tag & 7, position, end)
            field = message.fields_by_number.get(tag >> 3)
            if tag & 7 == BYTES and field is not None and field.message_type is not None:
                messages.append((field.message_type, start, position))


def _content(data: bytes, wire_type: int, position: int, end: int) -> tuple[int, int]:
    """Start and end of the content of a field of this wire type. Raises InvalidInput."""
    start = position
    if wire_type == BYTES:
        size, start = _varint(data, position, end)
        stop = start + size
    elif wire_type == VARINT:
        _, stop = _varint(data, position, end)
    elif wire_type in (FIXED32, FIXED64):
        stop = position + (4 if wire_type == FIXED32 else 8)
    else:
        raise InvalidInput(f"the message has a field of wire type {wire_type}, which proto3 does not use")
    if stop > end:
        raise InvalidInput("the message is truncated")
    return start, stop


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A base-128 varint at `position`, and the position behind it. Raises InvalidInput."""
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise InvalidInput("the message is truncated")
