"""Several replicas of one server: shared states, added items, a change of bundles under load."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from in_process_server import Server, wanted

from pipeline import Recommender
from pipeline.serving import limits
from pipeline.serving.desk import GONE_SECONDS, Desk
from pipeline.serving.kept_user import KeptUser, key_of
from pipeline.serving.memory_store import MemoryStore
from pipeline.serving.redis_store import RedisStore
from pipeline.serving.refused import RefusedError
from pipeline.serving.store import NOTHING

TEXT = "A brass telescope for stars and planets"


def ids(recommender, domain, *rows):
    return recommender.catalogue(domain).ids(rows)


@pytest.fixture(params=["memory", "redis"])
def any_server(request, bundle):
    store = MemoryStore(1 << 24, 3_600)
    if request.param == "redis":
        store = RedisStore(request.getfixturevalue("redis_url"), 3_600)
    return Server(Desk(wanted(bundle)), store)


def events(user, items):
    return {"domain": "books", "events": [{"user": user, "item": item} for item in items]}


def test_a_user_is_known_to_every_replica(any_server, recommender):
    first, second = any_server.replica(), any_server.replica()
    items = ids(recommender, "books", *range(10))
    for at, item in enumerate(items):
        (first, second)[at % 2].post("/events", **events("anna", [item]))
    expected = recommender.recommend(items, 10, domain="books")
    for replica in (first, second):
        found = replica.recommended(domain="books", user="anna")
        assert [item for item, _ in found] == expected.item_ids


def test_events_at_once_lose_nothing(any_server, recommender):
    replicas = [any_server.replica(), any_server.replica()]
    items = ids(recommender, "books", *range(48))
    start = threading.Barrier(6)

    def send(number):
        start.wait()
        for item in items[number::6]:
            answer = replicas[number % 2].post("/events", **events("anna", [item]))
            assert answer.status_code == 200, answer.text

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(send, range(6)))
    kept = KeptUser.from_bytes(any_server.store.read(key_of("books", "anna")).value)
    order = [item for item, _ in kept.events]
    assert sorted(order) == sorted(items)
    for number in range(6):
        mine = items[number::6]
        assert [item for item in order if item in mine] == mine, "each sender's order is kept"
    found = replicas[0].recommended(domain="books", user="anna", exclude_seen=False)
    expected = recommender.recommend(order, 10, domain="books", exclude_seen=False)
    np.testing.assert_allclose([s for _, s in found], expected.scores, rtol=1e-5, atol=1e-6)


def test_a_new_item_is_there_at_once_in_every_replica(any_server, bundle):
    first, second = any_server.replica(), any_server.replica()
    sent = {"domain": "books", "item": "new-1", "text": TEXT}
    assert first.post("/items", **sent).json()["added"] is True
    own = Recommender.load(bundle)
    own.add_item("books", "new-1", TEXT)
    for replica in (second, first):
        expected = own.recommend(["new-1"], 5, domain="books")
        assert [i for i, _ in replica.recommended(domain="books", history=["new-1"], k=5)] == (
            expected.item_ids
        )
        asked = {"domain": "books", "text": "telescope stars"}
        found = replica.client.get("/search", params=asked).json()
        assert {"item": "new-1", "text": TEXT} in found["items"]
        everything = replica.recommended(
            domain="books", history=own.catalogue("books").ids([0]), k=200
        )
        assert "new-1" in dict(everything)
    assert second.post("/items", **sent).json()["added"] is False
    status, code, _ = second.refused("/items", **sent | {"text": "another text"})
    assert (status, code) == (409, "other_text")
    taken = own.catalogue("books").id(3)
    assert second.refused("/items", **sent | {"item": taken})[1] == "other_text"
    blank = second.refused("/items", **sent | {"item": "new-2", "text": " \n"})
    assert blank[:2] == (422, "no_text")


def test_items_added_at_once_get_the_same_rows_everywhere(any_server, recommender):
    replicas = [any_server.replica() for _ in range(3)]
    start = threading.Barrier(3)

    def add(number):
        start.wait()
        for at in range(4):
            sent = {"domain": "books", "item": f"new-{number}-{at}", "text": f"{TEXT} {at}"}
            assert replicas[number].post("/items", **sent).status_code == 200
            same = {"domain": "books", "item": f"all-{at}", "text": f"{TEXT} {at}"}
            assert replicas[number].post("/items", **same).status_code == 200

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(add, range(3)))
    first, *others = [replica.service.live().recommender.catalogue("books") for replica in replicas]
    size = len(recommender.catalogue("books")) + 3 * 4 + 4
    assert len(first) == size
    for other in others:
        assert other.ids(range(size)) == first.ids(range(size))


def test_a_state_with_an_added_item_is_read_by_a_replica_that_starts_later(any_server, recommender):
    first = any_server.replica()
    first.post("/items", domain="books", item="new-1", text=TEXT)
    first.post("/events", **events("anna", ["new-1", *ids(recommender, "books", 2)]))
    later = any_server.replica()
    found = later.recommended(domain="books", user="anna", k=200)
    assert found == first.recommended(domain="books", user="anna", k=200)
    assert "new-1" not in dict(found), "it was seen"


def test_the_list_of_added_items_has_an_end(replica, monkeypatch):
    monkeypatch.setattr(limits, "ADDED_ITEMS", 1)
    assert replica.post("/items", domain="books", item="a", text=TEXT).status_code == 200
    answer = replica.refused("/items", domain="books", item="b", text=TEXT)
    assert answer[:2] == (409, "too_many_items")


def test_another_bundle_takes_over_and_computes_states_anew(any_server, recommender, other_bundle):
    first, second = any_server.replica(), any_server.replica()
    first.post("/items", domain="books", item="new-1", text=TEXT)
    items = ["new-1", *ids(recommender, "books", *range(6))]
    first.post("/events", **events("anna", items))
    any_server.desk.announce(wanted(other_bundle))
    first.service.beat()
    new = Recommender.load(other_bundle)
    new.add_item("books", "new-1", TEXT)
    for _ in range(2):  # replicas with the new and the old bundle take turns, and lose nothing
        assert new.version in first.client.get("/health").text
        assert recommender.version in second.client.get("/health").text
        for replica in (first, second):
            item = ids(recommender, "books", len(items))[0]
            items.append(item)
            assert replica.post("/events", **events("anna", [item])).status_code == 200
        expected = new.recommend(items, 10, domain="books")
        found = first.recommended(domain="books", user="anna")
        assert [item for item, _ in found] == expected.item_ids
    second.service.beat()
    assert second.recommended(domain="books", user="anna") == first.recommended(
        domain="books", user="anna"
    )
    assert 'hydrarec_swaps_total{replica="' in first.client.get("/metrics").text
    assert {report.version for report in any_server.desk.reports()} == {new.version}


def test_no_request_is_lost_while_bundles_change(server, recommender, bundle, other_bundle):
    replica = server.replica()
    items = ids(recommender, "books", *range(20))
    replica.post("/events", **events("anna", items[:5]))
    versions, stopped = set(), threading.Event()

    def ask():
        while not stopped.is_set():
            asked = {"user": "anna"} if len(versions) % 2 else {"history": items}
            answer = replica.post("/recommend", domain="books", **asked)
            assert answer.status_code == 200, answer.text
            versions.add(answer.json()["bundle"])

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask) for _ in range(3)]
        for next_one in (other_bundle, bundle, other_bundle):
            server.desk.announce(wanted(next_one))
            replica.service.beat()
        stopped.set()
        for future in asking:
            future.result()
    assert versions == {wanted(bundle).version, wanted(other_bundle).version}


def test_a_bundle_that_cannot_be_loaded_leaves_the_old_one(server, other_bundle, tmp_path, bundle):
    broken = tmp_path / "broken"
    shutil.copytree(other_bundle, broken)
    target = wanted(broken)
    weights = next(broken.rglob("weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    replica = server.replica()
    server.desk.announce(target)
    replica.service.beat()
    [report] = server.desk.reports()
    assert (report.version, report.tried) == (wanted(bundle).version, target.version)
    assert "weights" in report.refused
    assert replica.client.get("/health").json()["bundle"] == wanted(bundle).version
    replica.service.beat()
    server.desk.announce(wanted(other_bundle))
    replica.service.beat()
    [report] = server.desk.reports()
    assert (report.version, report.refused) == (wanted(other_bundle).version, "")


def test_items_that_the_new_bundle_lacks_are_left_out(server, recommender, trained):
    replica = server.replica()
    smaller = trained("smaller", items=30)
    new = Recommender.load(smaller)
    gone = [
        i for i in recommender.catalogue("books").ids(range(60)) if i not in new.catalogue("books")
    ]
    both = [i for i in recommender.catalogue("books").ids(range(60)) if i not in gone]
    assert gone
    replica.post("/events", **events("anna", [gone[0], both[0], gone[1], both[1]]))
    replica.post("/events", **events("ben", gone[:2]))
    server.desk.announce(wanted(smaller))
    replica.service.beat()
    expected = new.recommend(both[:2], 10, domain="books")
    found = replica.recommended(domain="books", user="anna")
    assert [item for item, _ in found] == expected.item_ids
    assert replica.refused("/recommend", domain="books", user="ben")[:2] == (404, "unknown_user")


def test_past_the_window_the_latest_events_count(trained, redis_server):
    windowed = trained("windowed", max_history=4)
    recommender = Recommender.load(windowed)
    assert recommender.window == 4
    items = ids(recommender, "books", *range(0, 30, 2))
    for past, expected_of in (
        (False, recommender),
        (True, Recommender.load(windowed, stream_past_window=True)),
    ):
        options = {"stream_past_window": past}
        server = Server(Desk(wanted(windowed)), MemoryStore(1 << 24, 60), options)
        replica = server.replica()
        for end, item in enumerate(items, 1):
            assert replica.post("/events", **events("anna", [item])).status_code == 200
            expected = expected_of.recommend(items[:end], 5, domain="books")
            found = replica.recommended(domain="books", user="anna", k=5)
            assert [i for i, _ in found] == expected.item_ids, (past, end)
            direct = replica.recommended(domain="books", history=items[:end], k=5)
            assert [i for i, _ in direct] == expected.item_ids


def test_a_record_that_is_none_is_an_error_of_ours(server, recommender):
    server.store.replace(key_of("books", "anna"), b"what is this", NOTHING)
    answer = server.replica().post("/recommend", domain="books", user="anna")
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"


def test_without_its_redis_a_server_says_so(bundle):
    store = RedisStore("redis://127.0.0.1:1/0", 60)
    with pytest.raises(RefusedError, match="does not answer"):
        Server(Desk(wanted(bundle)), store).replica()


def test_replicas_that_are_gone_leave_the_desk(bundle):
    now = [0.0]
    desk = Desk(wanted(bundle), lambda: now[0])
    server = Server(desk, MemoryStore(1 << 24, 60))
    first, second = server.replica(), server.replica()
    first.service.beat()
    second.service.beat()
    assert len(desk.reports()) == 2
    now[0] = GONE_SECONDS - 1
    second.service.beat()
    now[0] = GONE_SECONDS + 1
    assert len(desk.reports()) == 1
    assert first.client.get("/metrics").text.count("hydrarec_bundle_info{") == 2, "it is back"
