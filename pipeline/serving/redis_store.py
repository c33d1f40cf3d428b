"""States in a Redis: they outlive the server, and several servers share them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.serving.refused import RefusedError
from pipeline.serving.store import Counts, Kept, NewItem

SCHEMES = ("redis://", "rediss://", "unix://")
_STAMP = 16  # bytes in front of a value
_PATIENCE = 5.0  # seconds until a Redis that does not answer is an error
_REPLACE = f"""
local before = redis.call('GETRANGE', KEYS[1], 0, {_STAMP - 1})
if before ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""
_APPEND = """
if redis.call('LLEN', KEYS[1]) ~= tonumber(ARGV[1]) then return 0 end
redis.call('RPUSH', KEYS[1], ARGV[2])
return 1
"""


class RedisStore:
    """A `Store` in a Redis: one script call a write, so that comparing and writing are one.

    How much memory states take, and which leave first when it is full, is Redis's own
    configuration (`maxmemory`, `maxmemory-policy volatile-lru`: all states have a time to live, and
    the list of added items, which must not leave, has none).

    Args:
        url: redis://HOST:PORT/DB, rediss:// or unix://.
        seconds: how long a state is kept after it was last read or written.
        prefix: of all keys; servers with the same prefix share states.

    Raises:
        ValueError: redis is not installed, or the address is none.
    """

    def __init__(self, url: str, seconds: int, prefix: str = "hydrarec") -> None:
        try:
            import redis
        except ImportError as error:
            raise ValueError(
                "a state store in Redis needs redis-py: pip install 'hydrarec[serve]'"
            ) from error
        self._seconds, self._prefix = seconds, prefix
        self._errors = redis.RedisError
        self._redis: Any = redis.Redis.from_url(
            url, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE
        )
        self._replace = self._redis.register_script(_REPLACE)
        self._append = self._redis.register_script(_APPEND)

    def read(self, key: str) -> Kept | None:
        """The value of a key, whose time to live begins anew."""
        with self._answering():
            found: bytes | None = self._redis.getex(self._user(key), ex=self._seconds)
        return None if found is None else Kept(found[_STAMP:], found[:_STAMP])

    def replace(self, key: str, value: bytes, stamp: bytes) -> bool:
        """Write a value if the key's stamp is still `stamp`."""
        fresh = secrets.token_bytes(_STAMP)
        with self._answering():
            return bool(self._replace([self._user(key)], [stamp, fresh + value, self._seconds]))

    def items_since(self, count: int) -> list[NewItem]:
        """All added items after the first `count`."""
        with self._answering():
            return [NewItem(*json.loads(row)) for row in self._redis.lrange(self._items, count, -1)]

    def append_item(self, item: NewItem, count: int) -> bool:
        """Append an item if there are still `count`."""
        with self._answering():
            return bool(self._append([self._items], [count, json.dumps(item)]))

    def counts(self) -> Counts:
        """Keys of the whole database but the list of items, and what Redis evicted and let expire.

        Exact where the database is the server's alone: counting by prefix would read all keys.
        """
        with self._answering():
            keys, items = int(self._redis.dbsize()), int(self._redis.exists(self._items))
            stats = self._redis.info("stats")
        return Counts(keys - items, None, stats["evicted_keys"], stats["expired_keys"])

    @property
    def _items(self) -> str:
        return f"{self._prefix}:items"

    def _user(self, key: str) -> str:
        return f"{self._prefix}:user:{key}"

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """A Redis that is away is no fault of the client, and its address is not told to them."""
        try:
            yield
        except self._errors as error:
            raise RefusedError(
                503, "no_store", "the store of states does not answer; try again later"
            ) from error
