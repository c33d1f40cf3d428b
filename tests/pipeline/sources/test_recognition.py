"""Every format knows its own data and leaves its neighbours' alone."""

import gzip
import json

import polars as pl
import pytest
from pydantic import BaseModel

from pipeline.ingest import recognise
from pipeline.sources.format import Sight
from pipeline.sources.registry import FORMATS, read_source

AMAZON_ROW = {"user_id": "u", "parent_asin": "a", "rating": 5.0, "timestamp": 1405296000123}
# The files of one small data set of each format, by their place in its folder.
FILES = {
    "amazon_reviews": {"Desks.jsonl": json.dumps(AMAZON_ROW) + "\n"},
    "amazon_splits": {
        f"Desks.{part}.csv": "user_id,parent_asin,rating,timestamp\nu,a,5.0,1405296000123\n"
        for part in ("train", "valid", "test")
    },
    "hllm": {
        "dataset/tiny.csv": "item_id,user_id,timestamp\na,u,1405296000\n",
        "information/tiny.csv": "item_id,title,description\na,Oak,Solid\n",
    },
    "huggingface": {},  # written by the library
    "ids": {"tiny.txt": "1 5 6\n2 7 8 9\n"},
    "movielens": {
        "ratings.csv": "userId,movieId,rating,timestamp\n1,2,4.0,1405296000\n",
        "movies.csv": "movieId,title,genres\n2,Quiet Hours,Drama\n",
    },
    "recbole": {
        "tiny.inter": "user_id:token\titem_id:token\ttimestamp:float\nu\ta\t1405296000\n",
        "tiny.item": "item_id:token\ttitle:token_seq\na\tOak\n",
    },
    "sequences": {
        "sequences.tsv.gz": "u\ta b\t1405296000 1405296001\n",
        "items.tsv.gz": "a\tOak\tSolid\nb\tPine\tLight\n",
    },
    "steam": {
        "reviews.json": "{u'username': u'u', u'product_id': u'7', u'date': u'2018-01-02'}\n",
        "games.json": "{u'id': u'7', u'app_name': u'Oak Quest'}\n",
    },
    "table": {
        "events.csv": "customer_id,product_id,date\nu,a,2018-01-02\n",
        "products.csv": "product_id,name\na,Oak\n",
    },
}
# Without a folder or file of its own.
UNSEEN = {"simulated"}


def write(folder, name):
    if name == "huggingface":
        library = pytest.importorskip("datasets")
        rows = {"user_id": ["u"], "item_id": ["a"], "timestamp": [1405296000]}
        library.Dataset.from_dict(rows).save_to_disk(folder)
    for place, text in FILES[name].items():
        file = folder / place
        file.parent.mkdir(parents=True, exist_ok=True)
        data = text.encode()
        file.write_bytes(gzip.compress(data) if place.endswith(".gz") else data)
    return folder


def test_every_format_is_here():
    assert FILES.keys() | UNSEEN == FORMATS.keys()


@pytest.mark.parametrize("name", FILES)
def test_a_folder_is_recognised_and_read(tmp_path, name):
    folder = write(tmp_path / "tiny", name)
    found = recognise(folder / "tiny.txt" if name == "ids" else folder)
    assert found.format.name == name
    tables = read_source(found.config(), tmp_path).whole()
    assert tables.interactions.height > 0
    assert tables.rejected == ()


@pytest.mark.parametrize("name", FILES)
def test_no_particular_format_claims_anothers_data(tmp_path, name):
    folder = write(tmp_path / "tiny", name)
    sights = [Sight(folder), *(Sight(path) for path in folder.rglob("*") if path.is_file())]
    particular = (one for one in FORMATS.values() if not one.is_general and one.name != name)
    claims = {one.name for one in particular for sight in sights if one.recognise(sight)}
    assert claims == set()


def test_strangers_are_nobodys(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "notes.txt").write_text("Dear diary,\nnothing happened.\n")
    (folder / "a.json").write_text("[1, 2]\n")
    (folder / "b.csv").write_text("height,weight\n1,2\n")
    pl.DataFrame({"height": [1]}).write_parquet(folder / "c.parquet")
    for sight in (folder, *sorted(folder.iterdir())):
        with pytest.raises(ValueError, match="in no format that is known"):
            recognise(sight)


@pytest.mark.parametrize("name", FORMATS)
def test_help_says_what_a_format_and_each_field_is(name):
    known = FORMATS[name]
    assert 10 < len(known.summary) <= 72
    assert_described(known.config)


def assert_described(config: type[BaseModel]):
    for field, info in config.model_fields.items():
        assert info.description, field
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            assert_described(info.annotation)
