"""Retries: pauses, deadlines, and errors that are not retried."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy.client.retries import Retries, call, call_async
from convoy.errors import ConvoyError, DeadlineExceeded, EngineFailed, InvalidInput, NotReady, Overloaded, TooLarge

QUICK = Retries(tries=4, first_s=0.001, longest_s=0.002)


@given(st.integers(1, 20), st.floats(0.001, 10), st.floats(0.001, 10), st.floats(0, 100))
def test_a_pause_grows_to_its_limit_and_keeps_the_deadline(
    tried: int, first: float, longest: float, remaining: float
) -> None:
    pause = Retries(tries=10, first_s=first, longest_s=longest).pause(tried, NotReady("x"), remaining)
    if pause is None:
        assert tried >= 10 or remaining <= longest
    else:
        assert 0 <= pause <= min(longest, first * 2 ** (tried - 1))
        assert pause < remaining


@given(st.floats(0, 5))
def test_an_overload_sets_the_earliest_retry(retry_after_s: float) -> None:
    pause = Retries(first_s=0.5).pause(1, Overloaded("full", retry_after_s), 100.0)
    assert pause is not None
    assert retry_after_s <= pause <= retry_after_s + 0.5


@pytest.mark.parametrize("kind", [InvalidInput, TooLarge, DeadlineExceeded, EngineFailed, ConvoyError])
def test_errors_that_a_retry_cannot_fix_are_not_retried(kind: type[ConvoyError]) -> None:
    assert Retries().pause(1, kind("x"), 100.0) is None


@pytest.mark.parametrize("failures", [0, 1, 3, 4])
def test_a_call_ends_with_its_first_success_or_its_last_failure(failures: int) -> None:
    for run in (call_it, call_it_async):
        tries, answer = run(failures)
        assert tries == min(failures + 1, 4)
        assert answer == ("failed" if failures == 4 else "answered")


def call_it(failures: int) -> tuple[int, str]:
    tries = 0

    def attempt(left: float) -> str:
        nonlocal tries
        tries += 1
        assert 0 < left <= 30
        if tries <= failures:
            raise NotReady("not yet")
        return "answered"

    try:
        answer = call(QUICK, 30, attempt)
    except NotReady:
        answer = "failed"
    return tries, answer


def call_it_async(failures: int) -> tuple[int, str]:
    tries = 0

    async def attempt(left: float) -> str:
        nonlocal tries
        tries += 1
        if tries <= failures:
            raise NotReady("not yet")
        return "answered"

    try:
        answer = asyncio.run(call_async(QUICK, 30, attempt))
    except NotReady:
        answer = "failed"
    return tries, answer
