"""API keys: which models a key may call, and its quotas.

A key is looked up by its SHA-256, so the time of a lookup reveals nothing about any key: to steer the digest, a client would
have to invert the hash. Without declared keys every client may call every model and nothing is hashed, but changes of the
server always need an admin key. `convoy up` creates one for the user who runs the server, in a file of the node's folder.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from convoy.credentials import LOCAL_KEY, digest, new_key
from convoy.errors import ConfigError, Forbidden, QuotaExceeded, Unauthenticated
from serve.config.base import TENSOR_SUFFIX
from serve.config.schema import ApiKey

MAX_KEY_BYTES = 256  # longer ones are refused without hashing
BUSY_SECONDS = 1.0  # retry-after of a key at its concurrency limit
LOCAL_KEY_TEXT = re.compile(rb"convoy_[\w-]+")  # no line feed, unlike the files of `convoy keys new --out`
NO_KEY = "no API key; send Authorization: Bearer KEY, or x-api-key: KEY"
UNKNOWN_KEY = "unknown API key"
NO_ADMIN = "this needs an admin key: declare one under keys, or use the one that `convoy keys local` names"


class Bucket:
    """A token bucket of `rate` requests a second that holds one second's requests, at least one."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        """`clock` returns seconds and never goes back."""
        self._rate = rate
        self._capacity = max(1.0, rate)
        self._tokens = self._capacity
        self._filled = clock()
        self._clock = clock

    def take(self) -> float:
        """Takes a token and returns 0. If there is none, returns the seconds until there is one."""
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0.0


class Holder:
    """A key and its use of its quotas."""

    def __init__(self, key: ApiKey, clock: Callable[[], float]) -> None:
        self.key = key
        self._models = None if key.models is None else frozenset(key.models)
        self._bucket = None if key.rate is None else Bucket(key.rate, clock)
        self._in_flight = 0

    def may_call(self, name: str) -> bool:
        """Whether the key may call this model; the right to a model includes its tensor form."""
        return self._models is None or name.removesuffix(TENSOR_SUFFIX) in self._models

    def check_call(self, name: str) -> None:
        """Raises Forbidden, also for a model that does not exist: a key must not learn which do."""
        if not self.may_call(name):
            raise Forbidden(f"key {self.key.name} may not call {name[:60]!r}")

    def check_feedback(self, experiment: str) -> None:
        """Raises Forbidden. A key limited to some models must name the experiment of its feedback."""
        if not experiment and self._models is not None:
            raise Forbidden(f"key {self.key.name} must name the experiment of each feedback item")
        if experiment:
            self.check_call(experiment)

    def check_admin(self) -> None:
        """Raises Forbidden unless this is an admin key."""
        if not self.key.admin:
            raise Forbidden(f"key {self.key.name} is not an admin key; {NO_ADMIN}")

    def enter(self) -> None:
        """Counts a request; `leave` ends it. Raises QuotaExceeded, and then nothing is counted."""
        limit = self.key.concurrency
        if limit is not None and self._in_flight >= limit:
            raise QuotaExceeded(f"key {self.key.name} is at its limit of {limit} requests in flight", BUSY_SECONDS)
        wait = 0.0 if self._bucket is None else self._bucket.take()
        if wait:
            raise QuotaExceeded(f"key {self.key.name} is at its limit of {self.key.rate:g} requests a second", wait)
        self._in_flight += 1

    def leave(self) -> None:
        """Ends a request that `enter` counted."""
        self._in_flight -= 1


class Access:
    """The keys of a gateway. Lives on its event loop."""

    def __init__(
        self, keys: Iterable[ApiKey] = (), local_key: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`local_key` is an admin key that is not declared; empty means none."""
        self._clock = clock
        self._local = {digest(local_key): Holder(_local_entry(local_key), clock)} if local_key else {}
        self._holders: Mapping[bytes, Holder] = self._local
        self.open = True
        self.declare(keys)

    def declare(self, keys: Iterable[ApiKey]) -> None:
        """Replaces the declared keys. Unchanged keys keep the use of their quotas."""
        declared = {bytes.fromhex(key.sha256): key for key in keys}
        present = self._holders
        self._holders = self._local | {
            sha256: present[sha256] if sha256 in present and present[sha256].key == key else Holder(key, self._clock)
            for sha256, key in declared.items()
        }
        self.open = not declared

    def find(self, shown: bytes) -> Holder:
        """The holder of the key `shown`. Raises Unauthenticated."""
        if not shown:
            raise Unauthenticated(NO_KEY)
        holder = self._holders.get(digest(shown)) if len(shown) <= MAX_KEY_BYTES else None
        if holder is None:
            raise Unauthenticated(UNKNOWN_KEY)
        return holder

    def find_admin(self, shown: bytes) -> Holder:
        """The holder of an admin key, needed also without declared keys. Raises Unauthenticated or Forbidden."""
        if not shown:
            raise Unauthenticated(f"{NO_KEY}; {NO_ADMIN}")
        holder = self.find(shown)
        holder.check_admin()
        return holder

    def enter(self, shown: bytes, name: str) -> Holder:
        """Starts a call of model `name`; the holder's `leave` ends it. Raises Unauthenticated, Forbidden, QuotaExceeded."""
        holder = self.find(shown)
        holder.check_call(name)
        holder.enter()
        return holder


def key_in(authorization: bytes | None, api_key: bytes | None) -> bytes:
    """The key in the headers (or metadata) `authorization` and `x-api-key`; empty if there is none (RFC 6750, section 2.1)."""
    if authorization is not None:
        scheme, _, credentials = authorization.partition(b" ")
        if scheme.lower() == b"bearer":
            return credentials.strip()
    return api_key or b""


def make_local_key(folder: Path) -> Path:
    """Writes a new admin key into the node's folder, readable by this user only, and invalidates the previous one.

    Raises ConfigError if the file there was not written by a server.
    """
    path = folder / LOCAL_KEY
    if path.exists() and not LOCAL_KEY_TEXT.fullmatch(path.read_bytes()):
        raise ConfigError(f"{path} was not written by a server; move it away, or set runtime_dir to another folder")
    path.unlink(missing_ok=True)
    descriptor = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600
    )  # never through a link, never world-readable
    with os.fdopen(descriptor, "w") as file:
        file.write(new_key())
    return path


def read_local_key(folder: Path) -> str:
    """The admin key in the node's folder, empty if there is none."""
    path = folder / LOCAL_KEY
    return path.read_text() if path.exists() else ""


def _local_entry(key: str) -> ApiKey:
    return ApiKey(name="local", sha256=digest(key).hex(), admin=True, metrics=True)
