"""API keys, their rights and their quotas."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy.cli.keys import write_key
from convoy.credentials import digest, new_key
from convoy.errors import ConfigError, Forbidden, QuotaExceeded, Unauthenticated
from serve.auth import MAX_KEY_BYTES, Access, Bucket, key_in, make_local_key, read_local_key
from serve.config.schema import ApiKey


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def declared(key: str, name: str = "shop", **rights: object) -> ApiKey:
    """A key of the configuration."""
    return ApiKey.model_validate({"name": name, "sha256": digest(key).hex(), **rights})


@given(rate=st.floats(0.1, 1000), pauses=st.lists(st.floats(0, 5), min_size=1, max_size=200))
def test_a_bucket_never_exceeds_its_rate(rate: float, pauses: list[float]) -> None:
    clock = Clock()
    bucket = Bucket(rate, clock)
    taken = 0
    for pause in pauses:
        clock.now += pause
        taken += bucket.take() == 0
    assert taken <= max(1.0, rate) + rate * sum(pauses) + 1e-6 * len(pauses)


@given(rate=st.floats(0.1, 1000))
def test_a_request_after_the_returned_wait_is_served(rate: float) -> None:
    clock = Clock()
    bucket = Bucket(rate, clock)
    while not (wait := bucket.take()):
        pass
    clock.now += wait * (1 + 1e-9) + 1e-9
    assert bucket.take() == 0


def test_without_declared_keys_all_clients_may_call_and_none_may_make_changes() -> None:
    access = Access()
    assert access.open
    with pytest.raises(Unauthenticated, match="admin"):
        access.find_admin(b"")
    with pytest.raises(Unauthenticated):
        access.find_admin(new_key().encode())


def test_a_key_is_found_by_its_digest_alone() -> None:
    key = new_key()
    access = Access([declared(key)])
    assert not access.open
    assert access.find(key.encode()).key.name == "shop"
    for wrong in (b"", key[:-1].encode(), key.upper().encode(), digest(key).hex().encode(), b"x" * (MAX_KEY_BYTES + 1)):
        with pytest.raises(Unauthenticated):
            access.find(wrong)


def test_a_key_may_call_both_forms_of_its_models_and_no_other_model() -> None:
    key = new_key().encode()
    access = Access([declared(key.decode(), models=["a", "nets"])])
    for name in ("a", "a-tensor", "nets"):
        access.enter(key, name).leave()
    for name in ("b", "", "unknown"):
        with pytest.raises(Forbidden):
            access.enter(key, name)
    with pytest.raises(Forbidden, match="name the experiment"):
        access.find(key).check_feedback("")
    access.find(key).check_feedback("nets")


def test_a_key_without_models_may_call_none() -> None:
    key = new_key().encode()
    with pytest.raises(Forbidden):
        Access([declared(key.decode(), models=[], metrics=True)]).enter(key, "a")


def test_the_concurrency_of_a_key_is_limited() -> None:
    key = new_key().encode()
    access = Access([declared(key.decode(), concurrency=2)])
    first, _ = access.enter(key, "a"), access.enter(key, "a")
    with pytest.raises(QuotaExceeded, match="in flight"):
        access.enter(key, "a")
    first.leave()
    access.enter(key, "a")


def test_a_refused_request_does_not_count_as_in_flight() -> None:
    key, clock = new_key().encode(), Clock()
    access = Access([declared(key.decode(), rate=1, concurrency=1)], clock=clock)
    access.enter(key, "a").leave()
    with pytest.raises(QuotaExceeded) as caught:
        access.enter(key, "a")
    clock.now += caught.value.retry_after_s
    access.enter(key, "a")


def test_a_key_that_is_declared_again_keeps_its_used_quota() -> None:
    old, new, clock = new_key(), new_key(), Clock()
    access = Access([declared(old, rate=1)], clock=clock)
    access.enter(old.encode(), "a").leave()
    access.declare([declared(old, rate=1), declared(new, "other")])
    with pytest.raises(QuotaExceeded):
        access.enter(old.encode(), "a")
    access.declare([declared(new, "other")])
    with pytest.raises(Unauthenticated):
        access.find(old.encode())


def test_the_local_key_is_an_admin_key_and_not_a_declared_one(tmp_path: Path) -> None:
    assert read_local_key(tmp_path) == ""
    path = make_local_key(tmp_path)
    first = read_local_key(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    access = Access(local_key=first)
    assert access.open
    access.find_admin(first.encode()).check_call("anything")
    make_local_key(tmp_path)
    assert read_local_key(tmp_path) != first


def test_changes_need_an_admin_key() -> None:
    key = new_key()
    with pytest.raises(Forbidden, match="admin"):
        Access([declared(key)]).find_admin(key.encode())


@pytest.mark.parametrize(
    ("authorization", "api_key", "key"),
    [
        (b"Bearer abc", None, b"abc"),
        (b"bearer  abc ", b"other", b"abc"),
        (None, b"abc", b"abc"),
        (b"Basic dTpw", b"abc", b"abc"),
        (b"Basic dTpw", None, b""),
        (b"abc", None, b""),
        (None, None, b""),
    ],
)
def test_a_key_is_read_from_either_header(authorization: bytes | None, api_key: bytes | None, key: bytes) -> None:
    assert key_in(authorization, api_key) == key


def test_a_key_file_of_the_user_is_not_overwritten(tmp_path: Path) -> None:
    """As after `convoy keys new --out admin.key` in the folder that is also `runtime_dir`."""
    write_key(tmp_path / "admin.key", key := new_key())
    with pytest.raises(ConfigError, match="set runtime_dir to another folder"):
        make_local_key(tmp_path)
    assert (tmp_path / "admin.key").read_text() == f"{key}\n"
