import gzip
import json

import pytest

from pipeline.sources.format import Sight
from pipeline.sources.registry import FORMATS, read_source

OF_2018 = (
    [
        {"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1405296000},
        {"reviewerID": "A2", "asin": "B2", "overall": 2.0, "unixReviewTime": 1405382400},
    ],
    [
        {"asin": "B1", "title": "Oak Desk", "description": ["Solid.", "Oiled."]},
        {"asin": "B2", "title": "Pine Desk", "description": []},
    ],
)
OF_2023 = (
    [
        {"user_id": "A1", "parent_asin": "B1", "rating": 5.0, "timestamp": 1405296000123},
        {"user_id": "A2", "parent_asin": "B2", "rating": 2.0, "timestamp": 1405382400999},
    ],
    [
        {"parent_asin": "B1", "title": "Oak Desk", "features": ["Solid"], "description": []},
        {"parent_asin": "B2", "title": "Pine Desk", "features": [], "description": ["Light"]},
    ],
)
TEXTS = {
    2018: ["Oak Desk. Solid., Oiled", "Pine Desk"],
    2023: ["Oak Desk. Solid", "Pine Desk. Light"],
}
EDITIONS = {2018: OF_2018, 2023: OF_2023}


def write(file, rows):
    with gzip.open(file, "wt") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    return file


@pytest.fixture(params=EDITIONS)
def edition(request, tmp_path):
    reviews, items = EDITIONS[request.param]
    write(tmp_path / "Desks.json.gz", reviews)
    write(tmp_path / "meta_Desks.json.gz", items)
    return request.param, tmp_path


def read(folder, **options):
    given = {"reviews": str(folder / "Desks.json.gz")}
    config = FORMATS["amazon_reviews"].config.model_validate(given | options)
    return read_source(config, folder).whole()


def test_both_editions_give_the_same_interactions(edition):
    _, folder = edition
    tables = read(folder)
    assert tables.interactions.rows() == [("A1", "B1", 1405296000), ("A2", "B2", 1405382400)]
    assert (tables.order, tables.items.height, tables.rejected) == ("time", 0, ())


def test_metadata_give_the_texts(edition):
    year, folder = edition
    items = read(folder, metadata=str(folder / "meta_Desks.json.gz")).items
    assert items["item_id"].to_list() == ["B1", "B2"]
    assert [text.rstrip(".") for text in items["text"]] == TEXTS[year]


def test_low_ratings_are_left_out_if_asked(edition):
    _, folder = edition
    tables = read(folder, min_rating=4)
    assert tables.interactions["item_id"].to_list() == ["B1"]
    assert tables.left_out == 1


def test_a_bad_line_is_named(tmp_path):
    file = write(tmp_path / "Desks.json.gz", OF_2018[0])
    with gzip.open(file, "at") as stream:
        stream.write('{"reviewerID": "A3", "asin"\n')
        stream.write(json.dumps({"reviewerID": "A3", "unixReviewTime": 1405296000}) + "\n")
    rejected = read(tmp_path).rejected
    assert sorted(row.line for row in rejected) == [3, 4]


def test_a_folder_is_recognised_with_its_metadata(edition):
    year, folder = edition
    guess = FORMATS["amazon_reviews"].recognise(Sight(folder))
    assert guess.fields == {
        "reviews": str(folder / "Desks.json.gz"),
        "metadata": str(folder / "meta_Desks.json.gz"),
    }
    assert str(year) in guess.why


def test_other_objects_are_refused(tmp_path):
    write(tmp_path / "Desks.json.gz", [{"person": "x"}])
    assert FORMATS["amazon_reviews"].recognise(Sight(tmp_path)) is None
    with pytest.raises(ValueError, match="has the fields person, expected reviews"):
        read(tmp_path)


def test_metadata_that_are_python_dicts_give_texts_too(tmp_path):
    write(tmp_path / "Desks.json.gz", OF_2018[0])
    rows = [{"asin": "B1", "title": "Oak 'Royal' Desk", "price": None}, {"asin": "B2"}]
    (tmp_path / "meta.json").write_text("".join(f"{row}\n" for row in rows) + "{'asin': x}\n")
    tables = read(tmp_path, metadata=str(tmp_path / "meta.json"))
    assert tables.items.rows() == [("B1", "Oak 'Royal' Desk"), ("B2", "")]
    assert [row.line for row in tables.rejected] == [3]
