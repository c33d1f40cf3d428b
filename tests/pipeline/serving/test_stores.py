"""Both stores keep the same promises: compare and set, expiry, and an order of added items."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.serving.memory_store import ENTRY_BYTES, MemoryStore
from pipeline.serving.redis_store import RedisStore
from pipeline.serving.refused import RefusedError
from pipeline.serving.store import NOTHING, NewItem

ROOM = 1 << 20


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture(params=["memory", "redis"])
def store(request):
    if request.param == "memory":
        return MemoryStore(ROOM, 60)
    return RedisStore(request.getfixturevalue("redis_url"), 60)


def test_a_value_is_written_only_by_who_has_seen_the_one_before(store):
    assert store.read("anna") is None
    assert store.replace("anna", b"1", NOTHING)
    first = store.read("anna")
    assert first.value == b"1"
    assert not store.replace("anna", b"other", NOTHING)
    assert not store.replace("ben", b"1", first.stamp), "the stamp is of another key's"
    assert store.replace("anna", b"2", first.stamp)
    assert not store.replace("anna", b"late", first.stamp)
    second = store.read("anna")
    assert second.value == b"2"
    assert second.stamp != first.stamp
    assert store.read("ben") is None


def test_values_are_any_bytes(store):
    value = bytes(range(256)) * 40
    assert store.replace("anna", value, NOTHING)
    assert store.read("anna").value == value
    assert store.replace("anna", b"", store.read("anna").stamp)
    assert store.read("anna").value == b""


def test_writers_at_once_lose_nothing(store):
    writers, each = 8, 25

    def add(number):
        for step in range(each):
            while True:
                kept = store.read("list")
                value = (kept.value if kept else b"") + bytes([number, step])
                if store.replace("list", value, kept.stamp if kept else NOTHING):
                    break

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(add, range(writers)))
    value = store.read("list").value
    pairs = [(value[at], value[at + 1]) for at in range(0, len(value), 2)]
    assert sorted(pairs) == [(n, s) for n in range(writers) for s in range(each)]
    for number in range(writers):
        assert [s for n, s in pairs if n == number] == list(range(each)), "each in its own order"


def test_added_items_stand_in_one_order_for_all(store):
    assert store.items_since(0) == []
    start = threading.Barrier(6)

    def add(number):
        start.wait()
        for step in range(10):
            while not store.append_item(
                NewItem("toys", f"{number}/{step}", 'a "text" ü \n'), len(store.items_since(0))
            ):
                pass

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(6)))
    items = store.items_since(0)
    assert sorted(i.item for i in items) == sorted(f"{n}/{s}" for n in range(6) for s in range(10))
    assert {(i.domain, i.text) for i in items} == {("toys", 'a "text" ü \n')}
    assert store.items_since(57) == items[57:]
    assert store.items_since(60) == []
    assert not store.append_item(items[0], 59)


def test_what_is_held_is_counted(store):
    for name in ("anna", "ben", "cleo"):
        store.replace(name, b"value", NOTHING)
    store.append_item(NewItem("toys", "x", "y"), 0)
    counts = store.counts()
    assert counts.states == 3
    assert counts.evicted == counts.expired == 0


def test_states_used_longest_ago_leave_first():
    room = 3 * (ENTRY_BYTES + 1 + 100)
    store = MemoryStore(room, 60)
    for name in "abc":
        assert store.replace(name, bytes(100), NOTHING)
    store.read("a")
    assert store.replace("d", bytes(100), NOTHING)
    assert store.read("b") is None
    assert all(store.read(name) for name in "acd")
    assert store.replace("e", bytes(201 + ENTRY_BYTES), NOTHING), "takes the room of two"
    assert [name for name in "acde" if store.read(name)] == ["d", "e"]
    counts = store.counts()
    assert (counts.states, counts.evicted, counts.expired) == (2, 3, 0)
    assert counts.state_bytes == room
    with pytest.raises(ValueError, match="what the store holds"):
        store.replace("f", bytes(room), NOTHING)
    assert store.counts() == counts


def test_states_expire_after_their_last_use():
    clock = Clock()
    store = MemoryStore(ROOM, 10, clock)
    store.replace("a", b"1", NOTHING)
    store.replace("b", b"1", NOTHING)
    clock.now = 9
    assert store.read("a")
    clock.now = 11
    assert store.read("b") is None
    assert store.read("a"), "it was used at 9"
    clock.now = 22
    assert store.counts()[:2] == (0, 0)
    assert store.counts().expired == 2
    assert store.replace("a", b"2", NOTHING), "what has expired is not there"


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 900), st.booleans()), max_size=60)
)
def test_the_bound_in_bytes_always_holds(steps):
    room = 3_000
    store = MemoryStore(room, 1e9)
    held = {}
    for key, size, writes in steps:
        kept = store.read(key)
        if writes:
            assert store.replace(key, bytes(size), kept.stamp if kept else NOTHING)
            held[key] = size
        counts = store.counts()
        assert counts.state_bytes <= room
        there = [key for key in held if store.read(key)]
        assert counts.states == len(there)
        assert counts.state_bytes == sum(1 + held[key] + ENTRY_BYTES for key in there)


def test_redis_forgets_states_in_time_and_never_items(redis_url):
    import redis

    store = RedisStore(redis_url, 60)
    store.replace("anna", b"1", NOTHING)
    store.append_item(NewItem("toys", "x", "y"), 0)
    server = redis.Redis.from_url(redis_url)
    [name] = server.keys("hydrarec:user:*")
    assert 50 < server.ttl(name) <= 60
    server.expire(name, 5)
    store.read("anna")
    assert server.ttl(name) > 50, "its time begins anew when it is used"
    assert server.ttl("hydrarec:items") == -1


def test_a_redis_that_is_away_is_said_without_its_address():
    store = RedisStore("redis://:secret@127.0.0.1:1/0", 60)
    with pytest.raises(RefusedError) as refused:
        store.read("anna")
    assert refused.value.status == 503
    assert "127.0.0.1" not in refused.value.message
    assert "secret" not in refused.value.message
