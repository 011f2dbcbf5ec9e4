"""Who may do what: API keys, the models they may call, their quotas.

A key is looked up by its SHA-256, so what a comparison takes tells nothing of a key: who would steer the digest would have
to invert the hash. Where no key is declared, whoever reaches a listener may ask, and nothing is hashed; changes always need
an admin's key. `convoy up` makes one for the user who serves, in a file of the node's folder.
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

LONGEST = 256  # bytes of what is shown as a key; more are not hashed
BUSY_SECONDS = 1.0  # advice to who has too many requests under way
LOCAL_KEY_TEXT = re.compile(rb"convoy_[\w-]+")  # `convoy keys new --out` ends its file with a line feed
NO_KEY = "no API key; send Authorization: Bearer KEY, or x-api-key: KEY"
UNKNOWN_KEY = "unknown API key"
NO_ADMIN = "this needs the key of an admin: declare one under keys, or use the one that `convoy keys local` names"


class Bucket:
    """A token bucket: `rate` requests a second, and at once what a second brings, at least one."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._most = max(1.0, rate)
        self._tokens = self._most
        self._filled = clock()
        self._clock = clock

    def take(self) -> float:
        """Takes a token and returns 0, or the seconds until there is one."""
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0.0


class Holder:
    """Whoever shows a key."""

    def __init__(self, key: ApiKey, clock: Callable[[], float]) -> None:
        self.key = key
        self._models = None if key.models is None else frozenset(key.models)
        self._bucket = None if key.rate is None else Bucket(key.rate, clock)
        self._under_way = 0

    def may_call(self, name: str) -> bool:
        """A model's key opens both its forms."""
        return self._models is None or name.removesuffix(TENSOR_SUFFIX) in self._models

    def check_call(self, name: str) -> None:
        """Raises Forbidden, whether there is such a model or not."""
        if not self.may_call(name):
            raise Forbidden(f"key {self.key.name} may not call {name[:60]!r}")

    def check_feedback(self, experiment: str) -> None:
        """Raises Forbidden. Whoever may not call everything says of which experiment they speak."""
        if not experiment and self._models is not None:
            raise Forbidden(f"key {self.key.name} must say which experiment each item is for")
        if experiment:
            self.check_call(experiment)

    def check_admin(self) -> None:
        """Raises Forbidden."""
        if not self.key.admin:
            raise Forbidden(f"key {self.key.name} is no admin's; {NO_ADMIN}")

    def enter(self) -> None:
        """A request begins. Raises QuotaExceeded."""
        most = self.key.concurrency
        if most is not None and self._under_way >= most:
            raise QuotaExceeded(f"key {self.key.name} has {most} requests under way, its limit", BUSY_SECONDS)
        wait = 0.0 if self._bucket is None else self._bucket.take()
        if wait:
            raise QuotaExceeded(f"key {self.key.name} has had its {self.key.rate:g} requests a second", wait)
        self._under_way += 1

    def leave(self) -> None:
        """A request that has entered has ended."""
        self._under_way -= 1


class Access:
    """The keys of a gateway. Lives on its event loop."""

    def __init__(
        self, keys: Iterable[ApiKey] = (), local_key: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`local_key` is an admin's that is not declared; empty: there is none."""
        self._clock = clock
        self._local = {digest(local_key): Holder(_local_entry(local_key), clock)} if local_key else {}
        self._holders: Mapping[bytes, Holder] = self._local
        self.open = True
        self.declare(keys)

    def declare(self, keys: Iterable[ApiKey]) -> None:
        """Other keys from now on. Those that stay keep what they have used of their quotas."""
        declared = {bytes.fromhex(key.sha256): key for key in keys}
        present = self._holders
        self._holders = self._local | {
            name: present[name] if name in present and present[name].key == key else Holder(key, self._clock)
            for name, key in declared.items()
        }
        self.open = not declared

    def find(self, shown: bytes) -> Holder:
        """Whose key this is. Raises Unauthenticated."""
        if not shown:
            raise Unauthenticated(NO_KEY)
        holder = self._holders.get(digest(shown)) if len(shown) <= LONGEST else None
        if holder is None:
            raise Unauthenticated(UNKNOWN_KEY)
        return holder

    def find_admin(self, shown: bytes) -> Holder:
        """Raises Unauthenticated or Forbidden; with or without declared keys."""
        if not shown:
            raise Unauthenticated(f"{NO_KEY}; {NO_ADMIN}")
        holder = self.find(shown)
        holder.check_admin()
        return holder

    def enter(self, shown: bytes, name: str) -> Holder:
        """A call of a model begins; ends with the holder's `leave`. Raises Unauthenticated, Forbidden, QuotaExceeded."""
        holder = self.find(shown)
        holder.check_call(name)
        holder.enter()
        return holder


def key_in(authorization: bytes | None, api_key: bytes | None) -> bytes:
    """The key that is shown in the headers (metadata) `authorization` and `x-api-key`; empty: none."""
    if authorization is not None:
        scheme, _, credentials = authorization.partition(b" ")
        if scheme.lower() == b"bearer":
            return credentials.strip()
    return api_key or b""


def make_local_key(folder: Path) -> Path:
    """A new admin's key in the node's folder, for this user alone; the one before is worth nothing from then on.

    Raises ConfigError for a file of that name that no server wrote.
    """
    path = folder / LOCAL_KEY
    if path.exists() and not LOCAL_KEY_TEXT.fullmatch(path.read_bytes()):
        raise ConfigError(f"{path} was not written by a server; move it away, or set runtime_dir to another folder")
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(new_key())
    return path


def read_local_key(folder: Path) -> str:
    """Empty where there is none."""
    path = folder / LOCAL_KEY
    return path.read_text() if path.exists() else ""


def _local_entry(key: str) -> ApiKey:
    return ApiKey(name="local", sha256=digest(key).hex(), admin=True, metrics=True)
