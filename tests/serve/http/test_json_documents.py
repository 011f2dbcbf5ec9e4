"""Values of JSON documents are counted before they are parsed."""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy.errors import InvalidInput, TooLarge
from serve.http.json_documents import LARGEST_VALUES, SMALL_BYTES, check_values, load, parse_bounded

LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=3)
DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner), max_leaves=40
)
MEGABYTE = 2**20


def count(document: Any) -> int:
    """The objects that a parser creates."""
    inner = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    return 1 + sum(map(count, inner))


@given(DOCUMENTS)
def test_every_value_of_a_document_is_counted(document: Any) -> None:
    if (values := count(document)) > 1:
        with pytest.raises(TooLarge, match="images_per_request"):
            check_values(orjson.dumps(document), values - 1)


@given(st.recursive(st.integers(0, 255), lambda inner: st.lists(inner, min_size=1), max_leaves=40))
def test_lists_of_numbers_are_counted_exactly(document: Any) -> None:
    check_values(orjson.dumps(document), count(document))


@pytest.mark.parametrize("unit", [b'"",', b"[],", b"{},", b"[0],", b'{"":0},', b"0,"])
def test_a_document_with_too_many_values_takes_no_memory(unit: bytes) -> None:
    body = b"[" + unit * (8 * MEGABYTE // len(unit)) + b"0]"
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            asyncio.run(parse_bounded(lambda: load(body), body, 10_000))
        assert tracemalloc.get_traced_memory()[1] < 4 * MEGABYTE
    finally:
        tracemalloc.stop()


def test_large_documents_are_parsed_off_the_loop_and_small_ones_on_it() -> None:
    def parse() -> tuple[threading.Thread, bool]:
        return threading.current_thread(), gc.isenabled()

    small, large = bytes(SMALL_BYTES), bytes(SMALL_BYTES + 1)
    assert asyncio.run(parse_bounded(parse, small, 1)) == (threading.current_thread(), True)
    thread, collecting = asyncio.run(parse_bounded(parse, large, 1))
    assert thread is not threading.current_thread()
    assert not collecting
    assert gc.isenabled()


def test_the_garbage_collector_is_enabled_again_after_an_error() -> None:
    body = b"[" + b" " * SMALL_BYTES
    with pytest.raises(InvalidInput, match="not JSON"):
        asyncio.run(parse_bounded(lambda: load(body), body, 2))
    assert gc.isenabled()


@pytest.mark.parametrize("item", [b'{"a":0}', b'"a"', b'{"":""}'])
def test_objects_and_strings_have_their_own_limits(item: bytes) -> None:
    """They take more memory and time than pixels, of which there may be millions."""
    allowed, refused = (b"[" + b",".join([item] * count) + b"]" for count in (1_000, 300_000))
    check_values(allowed, LARGEST_VALUES)
    check_values(b"[" + b",".join([b"255"] * 300_000) + b"]", LARGEST_VALUES)
    with pytest.raises(TooLarge, match="values in objects and strings"):
        check_values(refused, LARGEST_VALUES)
