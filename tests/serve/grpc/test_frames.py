"""The frame guard in front of the native gRPC server: the frames that it forwards, and the messages that it refuses."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.grpc.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    LARGE,
    LARGEST_REQUEST_FRAME,
    MAX_REFUSED,
    MAX_STREAMS,
    PADDED,
    PREFACE,
    RST_STREAM,
    WINDOW_UPDATE,
    FrameGuard,
    ProtocolError,
    literal,
)

MAX_BYTES = 1000
PEER = "ipv4:127.0.0.1:5"
PING = 6


def ignore(code: str) -> None:
    """Counts no refusal."""


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def message(size: int, compressed: int = 0) -> bytes:
    return bytes((compressed,)) + size.to_bytes(4, "big") + b"m" * size


class Guard:
    """A guard, with what it forwards in one piece."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.guard = FrameGuard(PEER, max_bytes, ignore)
        self.respond = self.guard.respond

    def request(self, data: bytes) -> tuple[bytes, bytes]:
        forward, back = self.guard.request(data)
        return b"".join(forward), back


def guard(*opened: int) -> Guard:
    """A guard of a connection with these streams open."""
    opened_guard = Guard()
    opened_guard.request(PREFACE + b"".join(frame(HEADERS, stream, b"\x82", END_HEADERS) for stream in opened))
    return opened_guard


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    raw: bytes


def frames(data: bytes) -> list[Frame]:
    found = []
    while data:
        stop = 9 + int.from_bytes(data[:3], "big")
        found.append(Frame(data[3], data[4], int.from_bytes(data[5:9], "big"), data[:stop]))
        data = data[stop:]
    return found


def kinds(data: bytes) -> list[tuple[int, int]]:
    return [(found.kind, found.stream) for found in frames(data)]


@given(st.lists(st.integers(0, MAX_BYTES), max_size=6), st.data())
def test_messages_within_the_limit_are_forwarded_unchanged_however_they_are_split(
    sizes: list[int], data: st.DataObject
) -> None:
    raw = b"".join(map(message, sizes))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    sent = b"".join(frame(DATA, 1, piece) for piece in pieces) + frame(DATA, 1, b"", END_STREAM)
    parts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=8)))
    connection = guard(1)
    results = [
        connection.request(sent[start:stop]) for start, stop in zip([0, *parts], [*parts, len(sent)], strict=True)
    ]
    assert b"".join(forward for forward, _ in results) == sent
    assert not any(back for _, back in results)


@given(
    st.integers(0, 20), st.sampled_from([(1, 0), (1, 5), (0, MAX_BYTES + 1), (1, 2**32 - 1), (0, 2**32 - 1)]), st.data()
)
def test_a_compressed_or_too_long_message_gets_a_status_and_a_reset(
    before: int, bad: tuple[int, int], data: st.DataObject
) -> None:
    compressed, size = bad
    raw = message(before) + bytes((compressed,)) + size.to_bytes(4, "big") + b"x"
    cut = data.draw(st.integers(0, len(raw)))
    connection = guard(1, 3)
    sent = frame(DATA, 1, raw[:cut]) + frame(DATA, 1, raw[cut:]) + frame(DATA, 3, message(2), END_STREAM)
    forward, back = connection.request(sent)
    *_, reset, other = frames(forward)
    assert (reset.kind, reset.stream) == (RST_STREAM, 1)
    assert other.raw == frame(DATA, 3, message(2), END_STREAM)
    passed = b"".join(found.raw[9:] for found in frames(forward) if found.kind == DATA and found.stream == 1)
    assert len(passed) < before + 10  # the server gets less than a complete prefix
    refusal = [found for found in frames(back) if found.stream == 1]
    assert [found.kind for found in refusal] == [HEADERS, RST_STREAM]
    assert refusal[0].flags & END_STREAM
    assert (literal("grpc-status", "12") if compressed else literal("grpc-status", "8")) in refusal[0].raw
    assert literal("grpc-accept-encoding", "identity") in refusal[0].raw
    assert connection.request(frame(DATA, 1, b"y" * 100)) == (b"", frame(WINDOW_UPDATE, 0, (100).to_bytes(4, "big")))
    assert connection.request(frame(RST_STREAM, 1, bytes(4))) == (b"", b"")


def test_padding_is_not_part_of_a_message() -> None:
    padded = frame(DATA, 1, bytes((200,)) + message(3) + b"\x01" * 200, PADDED)
    assert guard(1).request(padded) == (padded, b"")
    for payload in (b"", b"\x05", b"\x05" + bytes(4)):
        with pytest.raises(ProtocolError):
            guard(1).request(frame(DATA, 1, payload, PADDED))


def test_the_server_gets_the_address_of_the_client() -> None:
    name = literal("x-convoy-peer", PEER)
    forward, _ = Guard().request(
        PREFACE
        + frame(HEADERS, 1, b"\x82", END_HEADERS | END_STREAM)
        + frame(HEADERS, 3, b"\x82")
        + frame(CONTINUATION, 3, b"\x83", END_HEADERS)
    )
    assert forward == (
        frame(HEADERS, 1, b"\x82" + name, END_HEADERS | END_STREAM)
        + frame(HEADERS, 3, b"\x82")
        + frame(CONTINUATION, 3, b"\x83" + name, END_HEADERS)
    )


@pytest.mark.parametrize(
    ("block", "flags"),
    [(b"\x01\x82\x00", END_HEADERS | PADDED), (b"\x82" * LARGEST_REQUEST_FRAME, END_HEADERS | END_STREAM)],
    ids=["padding", "no room"],
)
def test_the_address_has_a_frame_of_its_own_where_none_has_room(block: bytes, flags: int) -> None:
    forward, _ = Guard().request(PREFACE + frame(HEADERS, 1, block, flags))
    name = frame(CONTINUATION, 1, literal("x-convoy-peer", PEER), END_HEADERS)
    assert forward == frame(HEADERS, 1, block, flags & ~END_HEADERS) + name


def test_the_reserved_bit_does_not_make_another_stream() -> None:
    """Otherwise a message that is too long could be hidden behind a shorter one."""
    reserved = 1 << 31
    connection = guard(1)
    assert connection.request(frame(DATA, 1, message(3)[:6])) == (frame(DATA, 1, message(3)[:6]), b"")
    rest = message(3)[6:] + message(MAX_BYTES + 1)[:5]
    forward, _ = connection.request(frame(DATA, 1 | reserved, rest))
    assert kinds(forward) == [(RST_STREAM, 1)]
    forward, _ = guard(1).request(frame(DATA, 1 | reserved, message(0, compressed=1)))
    assert kinds(forward) == [(RST_STREAM, 1)]


def test_a_response_that_has_begun_ends_with_trailers_only() -> None:
    connection = guard(1)
    assert kinds(connection.respond(frame(HEADERS, 1, b"\x88", END_HEADERS))) == [(HEADERS, 1)]
    _, back = connection.request(frame(DATA, 1, message(3, compressed=1)))
    assert b"content-type" not in back
    assert kinds(back)[:1] + kinds(back)[-2:] == [(WINDOW_UPDATE, 0), (HEADERS, 1), (RST_STREAM, 1)]
    assert connection.respond(frame(DATA, 1, b"late")) == b""


def test_a_response_that_has_ended_gets_no_second_status() -> None:
    connection = guard(1)
    connection.respond(frame(HEADERS, 1, b"\x88", END_HEADERS | END_STREAM))
    forward, back = connection.request(frame(DATA, 1, message(3, compressed=1)))
    assert (forward, kinds(back)) == (b"", [(WINDOW_UPDATE, 0)])


def test_no_frame_comes_between_the_frames_of_a_header_block() -> None:
    connection = guard(1, 3)
    connection.respond(frame(HEADERS, 3, b"\x88"))
    _, back = connection.request(frame(DATA, 1, message(0, compressed=1)))
    assert kinds(back) == [(WINDOW_UPDATE, 0)]
    assert kinds(connection.respond(frame(CONTINUATION, 3, b"", END_HEADERS))) == [
        (CONTINUATION, 3),
        (HEADERS, 1),
        (RST_STREAM, 1),
    ]


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        PREFACE + frame(PING, 0, bytes(LARGEST_REQUEST_FRAME + 1)),
        PREFACE + b"".join(frame(HEADERS, 1 + 2 * stream, b"\x82", END_HEADERS) for stream in range(MAX_STREAMS + 1)),
    ],
)
def test_protocol_violations_close_the_connection(sent: bytes) -> None:
    with pytest.raises(ProtocolError):
        Guard().request(sent)


def state(connection: Guard) -> int:
    """Streams that the guard remembers."""
    return len(connection.guard._begun) + len(connection.guard._partial) + len(connection.guard._refused)


LONG = message(MAX_BYTES + 1)[:50]

# What a client sends on a stream, what the server answers, and what the client has sent before that arrives.
CALLS = {
    "answered": ([(DATA, message(3), END_STREAM)], [(HEADERS, END_HEADERS | END_STREAM)], []),
    "answered after several messages": (
        [(DATA, message(3), 0), (DATA, message(4), 0), (DATA, b"", END_STREAM)],
        [(HEADERS, END_HEADERS), (DATA, 0), (HEADERS, END_HEADERS | END_STREAM)],
        [],
    ),
    "cancelled": ([(DATA, message(3)[:6], 0), (RST_STREAM, bytes(4), 0)], [], []),
    "refused": ([(DATA, message(3, compressed=1), END_STREAM)], [], []),
    "refused, and not ended by the client": ([(DATA, LONG, 0)], [], [(DATA, bytes(50), 0)]),
    "answered early": ([(DATA, message(30)[:9], 0)], [(HEADERS, END_HEADERS | END_STREAM)], [(DATA, bytes(9), 0)]),
    "reset by the server": ([(DATA, message(30)[:9], 0)], [(RST_STREAM, 0)], [(DATA, bytes(9), 0)]),
    "answered before trailers": (
        [(DATA, message(3), 0)],
        [(HEADERS, END_HEADERS | END_STREAM)],
        [(HEADERS, b"\x82", END_HEADERS | END_STREAM)],
    ),
}


@pytest.mark.parametrize(("sent", "answered", "late"), CALLS.values(), ids=CALLS)
def test_streams_that_have_ended_take_no_memory(
    sent: list[tuple[int, bytes, int]], answered: list[tuple[int, int]], late: list[tuple[int, bytes, int]]
) -> None:
    connection = guard()
    for stream in range(1, 20_000, 2):
        connection.request(frame(HEADERS, stream, b"\x82", END_HEADERS))
        for kind, payload, flags in sent:
            connection.request(frame(kind, stream, payload, flags))
        for kind, flags in answered:
            connection.respond(frame(kind, stream, bytes(4), flags))
        for kind, payload, flags in late:
            connection.request(frame(kind, stream, payload, flags))
    assert state(connection) <= MAX_REFUSED
    forward, back = connection.request(frame(HEADERS, 20_001, b"\x82", END_HEADERS) + frame(DATA, 20_001, message(3)))
    assert (kinds(forward), back) == ([(HEADERS, 20_001), (DATA, 20_001)], b"")


@pytest.mark.parametrize("count", [1, 2, 10])
def test_large_messages_are_forwarded_unchanged(count: int) -> None:
    connection = Guard(10**6)
    raw = message(count * LARGE)
    frames_of_data = [
        frame(DATA, 1, raw[at : at + LARGEST_REQUEST_FRAME]) for at in range(0, len(raw), LARGEST_REQUEST_FRAME)
    ]
    sent = b"".join(frames_of_data)
    forward, back = connection.request(PREFACE + frame(HEADERS, 1, b"\x82", END_HEADERS) + sent + sent[:100])
    assert (forward[-len(sent) :], back) == (sent, b"")
    assert kinds(forward) == [(HEADERS, 1), *[(DATA, 1)] * len(frames_of_data)]


def test_data_behind_the_end_of_a_response_is_not_forwarded() -> None:
    """The server does not read it. It learns only that the client's direction has ended."""
    connection = guard(1)
    connection.respond(frame(HEADERS, 1, b"\x88", END_HEADERS | END_STREAM))
    forward, back = connection.request(frame(DATA, 1, message(30)[:9]))
    assert (forward, frames(back)[0].raw[9:]) == (b"", (9).to_bytes(4, "big"))
    forward, back = connection.request(frame(DATA, 1, bytes(26), END_STREAM))
    assert (forward, kinds(back)) == (frame(DATA, 1, b"", END_STREAM), [(WINDOW_UPDATE, 0)])


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_forwarded_or_close_the_connection(data: bytes, with_preface: bool) -> None:
    connection = Guard()
    with contextlib.suppress(ProtocolError):
        connection.request(PREFACE + data if with_preface else data)
        connection.respond(data)


@given(st.text("abc%", max_size=20_000))
def test_long_strings_carry_their_length(text: str) -> None:
    raw = literal("n", text)
    length, rest = raw[3], raw[4:]
    if length == 127:
        for shift, byte in enumerate(rest):
            length += (byte & 127) << 7 * shift
            if byte < 128:
                rest = rest[shift + 1 :]
                break
    assert (length, rest) == (len(text), text.encode())
