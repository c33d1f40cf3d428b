"""The routes, in this process, against the recommender's own answers."""

import json

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.serving import limits

SCORES = {"rtol": 1e-5, "atol": 1e-6}  # prefilled or followed event by event: float32 both


def ids(recommender, domain, *rows):
    return recommender.catalogue(domain).ids(rows)


def same(found, expected):
    assert [item for item, _ in found] == expected.item_ids
    np.testing.assert_allclose([score for _, score in found], expected.scores, **SCORES)


@pytest.mark.parametrize("domain", ["books", "garden"])
@pytest.mark.parametrize("k", [1, 7, 200])
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_a_history_gets_the_recommenders_answer(replica, recommender, domain, k, exclude_seen):
    history = ids(recommender, domain, 3, 8, 3, 20)
    asked = {"domain": domain, "history": history, "k": k, "exclude_seen": exclude_seen}
    answer = replica.post("/recommend", **asked).json()
    expected = recommender.recommend(history, k, domain=domain, exclude_seen=exclude_seen)
    same([(item["item"], item["score"]) for item in answer["items"]], expected)
    catalogue = recommender.catalogue(domain)
    texts = [catalogue.texts(catalogue.row(item)) for item in expected.item_ids]
    assert [item["text"] for item in answer["items"]] == texts
    assert (answer["bundle"], answer["domain"]) == (recommender.version, domain)


def test_times_of_a_history_are_taken(replica, recommender):
    history = ids(recommender, "books", 3, 8)
    timed = [{"item": item, "time": 1_000 + at} for at, item in enumerate(history)]
    assert replica.recommended(domain="books", history=timed) == replica.recommended(
        domain="books", history=history
    ), "this model reads no times"
    assert replica.refused("/recommend", domain="books", history=[timed[0], history[1]])[:2] == (
        422,
        "times_missing",
    )


def test_a_known_user_is_followed_event_by_event(replica, recommender):
    history = ids(recommender, "books", *range(0, 40, 3))
    for end, item in enumerate(history, 1):
        answer = replica.post("/events", domain="books", events=[{"user": "anna", "item": item}])
        assert answer.json() == {"bundle": recommender.version, "applied": 1, "duplicates": 0}
        found = replica.recommended(domain="books", user="anna", k=5)
        same(found, recommender.recommend(history[:end], 5, domain="books"))


def test_a_batch_of_events_of_many_users_keeps_their_orders(replica, recommender):
    items = ids(recommender, "garden", *range(12))
    events = [{"user": f"u{at % 3}", "item": item} for at, item in enumerate(items)]
    assert replica.post("/events", domain="garden", events=events).json()["applied"] == 12
    for number in range(3):
        found = replica.recommended(domain="garden", user=f"u{number}")
        same(found, recommender.recommend(items[number::3], 10, domain="garden"))


def test_users_of_two_domains_are_two(replica, recommender):
    book, plant = ids(recommender, "books", 1)[0], ids(recommender, "garden", 1)[0]
    replica.post("/events", domain="books", events=[{"user": "anna", "item": book}])
    assert replica.refused("/recommend", domain="garden", user="anna")[:2] == (404, "unknown_user")
    replica.post("/events", domain="garden", events=[{"user": "anna", "item": plant}])
    same(
        replica.recommended(domain="garden", user="anna"),
        recommender.recommend([plant], 10, domain="garden"),
    )


def test_an_event_sent_twice_counts_once(replica, recommender):
    first, second = ids(recommender, "books", 4, 9)
    events = [
        {"user": "anna", "item": first, "event_id": "e1"},
        {"user": "anna", "item": second, "event_id": "e2"},
        {"user": "anna", "item": second, "event_id": "e2"},
    ]
    for expected in ((2, 1), (0, 3)):
        answer = replica.post("/events", domain="books", events=events).json()
        assert (answer["applied"], answer["duplicates"]) == expected
    same(
        replica.recommended(domain="books", user="anna"),
        recommender.recommend([first, second], 10, domain="books"),
    )
    for _ in range(2):  # without ids the same event is another one
        replica.post("/events", domain="books", events=[{"user": "anna", "item": first}])
    same(
        replica.recommended(domain="books", user="anna"),
        recommender.recommend([first, second, first, first], 10, domain="books"),
    )


def test_where_one_event_is_refused_none_is_applied(replica, recommender):
    events = [
        {"user": "ben", "item": ids(recommender, "books", 4)[0]},
        {"user": "ben", "item": "?"},
    ]
    status, code, message = replica.refused("/events", domain="books", events=events)
    assert (status, code) == (404, "unknown_item")
    assert "'?'" in message
    assert replica.refused("/recommend", domain="books", user="ben")[:2] == (404, "unknown_user")


def test_search_finds_what_the_catalogue_finds(replica, recommender):
    catalogue = recommender.catalogue("books")
    word = catalogue.texts(5).split()[0]
    asked = {"domain": "books", "text": word, "k": 4}
    found = replica.client.get("/search", params=asked).json()["items"]
    rows = catalogue.search(word, 4)
    assert found == [{"item": catalogue.id(row), "text": catalogue.texts(row)} for row in rows]
    assert found


def test_health_names_the_bundle_and_its_domains(replica, recommender):
    answer = replica.client.get("/health")
    assert answer.json() == {
        "status": "ok",
        "bundle": recommender.version,
        "domains": {name: len(recommender.catalogue(name)) for name in ("books", "garden")},
    }


def test_metrics_count_what_was_asked(replica, recommender):
    item = ids(recommender, "books", 4)[0]
    for _ in range(3):
        replica.recommended(domain="books", history=[item])
    replica.refused("/recommend", domain="books", user="nobody")
    replica.client.get("/no/such/path")
    replica.post("/events", domain="books", events=[{"user": "anna", "item": item}])
    answer = replica.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    counts = {
        (sample.labels.get("route"), sample.labels.get("status")): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == "hydrarec_requests_total"
    }
    assert counts == {
        ("/recommend", "200"): 3,
        ("/recommend", "404"): 1,
        ("/events", "200"): 1,
        ("other", "404"): 1,
    }
    assert "hydrarec_states 1.0" in answer.text
    assert f'version="{recommender.version}"' in answer.text


ITEM = {"domain": "books", "item": "x"}
INVALID = {
    "an unknown field": ("/recommend", {"domain": "books", "history": ["a"], "n": 3}),
    "neither history nor user": ("/recommend", {"domain": "books"}),
    "both": ("/recommend", {"domain": "books", "history": ["a"], "user": "anna"}),
    "an empty history": ("/recommend", {"domain": "books", "history": []}),
    "a long history": ("/recommend", {"domain": "books", "history": ["a"] * 1_001}),
    "k of 0": ("/recommend", {"domain": "books", "user": "a", "k": 0}),
    "a large k": ("/recommend", {"domain": "books", "user": "a", "k": limits.MOST_ITEMS + 1}),
    "k as text": ("/recommend", {"domain": "books", "user": "a", "k": "3"}),
    "a long id": ("/recommend", {"domain": "books", "history": ["a" * 257]}),
    "an item that is a number": ("/recommend", {"domain": "books", "history": [7]}),
    "no events": ("/events", {"domain": "books", "events": []}),
    "many events": ("/events", {"domain": "books", "events": [{"user": "u", "item": "i"}] * 1001}),
    "a negative time": (
        "/events",
        {"domain": "books", "events": [{"user": "u", "item": "i", "time": -1}]},
    ),
    "no text": ("/items", ITEM),
    "an empty text": ("/items", ITEM | {"text": ""}),
    "a long text": ("/items", ITEM | {"text": "a" * (limits.TEXT_CHARS + 1)}),
}


@pytest.mark.parametrize("case", INVALID)
def test_what_does_not_fit_the_schema_is_refused_in_one_shape(replica, case):
    path, body = INVALID[case]
    answer = replica.post(path, **body)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "problems"}
    assert error["code"] == "invalid_request"
    assert error["problems"]
    assert all(problem["at"].startswith("body") for problem in error["problems"])
    assert not any("by_" in problem["at"] for problem in error["problems"])


def test_unknown_names_are_told(replica):
    for path, body in (
        ("/recommend", {"user": "anna"}),
        ("/events", {"events": [{"user": "u", "item": "i"}]}),
        ("/items", {"item": "x", "text": "y"}),
    ):
        status, code, message = replica.refused(path, domain="shoes", **body)
        assert (status, code) == (404, "unknown_domain")
        assert "books, garden" in message


BODIES = {
    "broken JSON": (b'{"domain": ', 422),
    "no JSON at all": (b"\xff\xfe\x00", 400),
    "deeply nested": (b"[" * 200_000, 400),
    "a long number": (b'{"domain": "books", "user": "a", "k": ' + b"9" * 6_000 + b"}", 400),
    "half a character": (rb'{"domain": "books", "user": "\ud800"}', 422),
    "half a character as a name": (rb'{"domain": "books", "user": "a", "\ud800": 1}', 422),
    "not a number": (b'{"domain": "books", "user": "a", "k": NaN}', 422),
    "too large": (b'{"domain": "' + b"a" * (1 << 20) + b'"}', 413),
}


@pytest.mark.parametrize("case", BODIES)
def test_bodies_that_cannot_be_read_are_refused_in_one_shape(replica, case):
    body, status = BODIES[case]
    kind = {"content-type": "application/json"}
    answer = replica.client.post("/recommend", content=body, headers=kind)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert "Traceback" not in answer.text


def test_a_large_body_is_refused_where_its_length_is_not_said(replica):
    def parts():
        for _ in range(40):
            yield b" " * (1 << 16)

    answer = replica.client.post("/recommend", content=parts())
    assert answer.status_code == 413


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/x", 404), ("PUT", "/items", 405)])
def test_other_paths_and_methods_get_the_one_shape(replica, method, path, status):
    answer = replica.client.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"code", "message", "problems"}
    assert status != 405 or answer.headers["allow"] == "POST"


def test_what_breaks_on_our_side_tells_clients_nothing(replica, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("the secret of line 7")

    monkeypatch.setattr(replica.service, "search", broken)
    answer = replica.client.get("/search", params={"domain": "books", "text": "a"})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert "secret" not in answer.text
    assert "the secret of line 7" in caplog.text, "it is logged"


def test_the_schema_names_every_route_and_no_other_shape_of_failure(replica):
    schema = replica.client.get("/openapi.json").json()
    routes = {(path, method) for path, found in schema["paths"].items() for method in found}
    assert routes == {
        ("/recommend", "post"),
        ("/events", "post"),
        ("/items", "post"),
        ("/search", "get"),
        ("/health", "get"),
        ("/metrics", "get"),
    }
    assert "HTTPValidationError" not in json.dumps(schema)
    for found in schema["paths"].values():
        for route in found.values():
            for status, answer in route["responses"].items():
                if status != "200":
                    shape = answer["content"]["application/json"]["schema"]
                    assert shape == {"$ref": "#/components/schemas/Failed"}
