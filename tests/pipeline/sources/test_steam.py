import gzip
import json

import pytest

from pipeline.ingest import recognise
from pipeline.sources.registry import FORMATS, read_source

REVIEWS = [
    {"username": "Otter", "user_id": "7656", "product_id": "725280", "hours": 0.1,
     "date": "2017-12-17", "text": "Can't stop, \"really\"", "early_access": False},
    {"username": "Ж", "product_id": "328100", "date": "2018-01-02", "text": "ok"},
]  # fmt: skip
GAMES = [
    {"id": "725280", "app_name": "Oak Quest", "title": "Oak Quest", "genres": ["Action", "Indie"],
     "tags": ["Wood"], "price": 4.99},
    {"id": "328100", "app_name": "Pine Racer", "genres": None},
]  # fmt: skip
EVENTS = [("Otter", "725280", 1513468800), ("Ж", "328100", 1514851200)]
ITEMS = [("725280", "Oak Quest. Action, Indie. Wood"), ("328100", "Pine Racer")]


def as_python_2(row):
    return ascii(row).replace("{'", "{u'").replace(": '", ": u'").replace(", '", ", u'")


@pytest.fixture(params=["Python dicts", "JSON"])
def folder(request, tmp_path):
    write = as_python_2 if request.param == "Python dicts" else json.dumps
    for name, rows in (("steam_reviews.json.gz", REVIEWS), ("steam_games.json.gz", GAMES)):
        with gzip.open(tmp_path / name, "wt") as stream:
            stream.writelines(write(row) + "\n" for row in rows)
    return tmp_path


def read(folder, **options):
    given = {"reviews": "steam_reviews.json.gz"} | options
    return read_source(FORMATS["steam"].config.model_validate(given), folder).whole()


def test_reviews_and_games(folder):
    tables = read(folder, games="steam_games.json.gz")
    assert tables.interactions.rows() == EVENTS
    assert tables.items.rows() == ITEMS
    assert (tables.order, tables.rejected) == ("time", ())


def test_recognised_with_its_games(folder):
    found = recognise(folder)
    assert found.format.name == "steam"
    assert found.fields == {
        "reviews": str(folder / "steam_reviews.json.gz"),
        "games": str(folder / "steam_games.json.gz"),
    }
    assert read_source(found.config(), folder).whole().interactions.rows() == EVENTS


def test_a_bad_line_is_named(folder):
    with gzip.open(folder / "steam_reviews.json.gz", "at") as stream:
        stream.write("{u'username': u'x', u'product_id': open('/etc/passwd')}\n")
        stream.write("{u'username': u'x', u'product_id': u'1', u'date': u'yesterday'}\n")
        stream.write("{u'username': u'x', u'date': u'2018-01-02'}\n")
    rejected = read(folder).rejected
    assert [(row.line, row.reason) for row in rejected] == [
        (3, "is not a JSON object of texts and numbers"),
        (4, "the time is not an ISO 8601 date or time"),
        (5, "the item id is empty"),
    ]


def test_a_user_without_the_chosen_field_is_refused(folder):
    tables = read(folder, user="user_id")
    assert tables.interactions.rows() == [("7656", *EVENTS[0][1:])]
    assert [row.reason for row in tables.rejected] == ["the user id is empty"]


def test_names_of_fields_are_found_out(tmp_path):
    review = {"user_id": "u", "product_id": 7, "date": "2018-01-02"}
    (tmp_path / "reviews.jsonl").write_text(json.dumps(review) + "\n")
    (tmp_path / "games.jsonl").write_text(json.dumps({"id": 7, "title": "Oak"}) + "\n")
    found = recognise(tmp_path / "reviews.jsonl", [tmp_path / "games.jsonl"])
    assert found.fields["user"] == "user_id"
    assert found.fields["text"] == ["title", "genres", "tags"]
    tables = read_source(found.config(), tmp_path).whole()
    assert tables.interactions.rows() == [("u", "7", 1514851200)]
    assert tables.items.rows() == [("7", "Oak")]


@pytest.mark.parametrize(
    ("row", "format_name"),
    [
        ({"user_id": "u", "item_id": "a", "date": "2018-01-02"}, "table"),
        ({"user_id": "u", "parent_asin": "a", "timestamp": 1405296000123}, "amazon_reviews"),
    ],
)
def test_other_lines_of_objects_are_not_claimed(tmp_path, row, format_name):
    (tmp_path / "reviews.jsonl").write_text(json.dumps(row) + "\n")
    assert recognise(tmp_path / "reviews.jsonl").format.name == format_name
