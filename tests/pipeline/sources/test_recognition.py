"""Every format knows its own data and leaves its neighbours' alone."""

import polars as pl
import pytest
from pydantic import BaseModel

from pipeline.ingest import recognise
from pipeline.sources.format import Sight
from pipeline.sources.registry import FORMATS, read_source

# `simulated` reads no files.
WITH_FILES = sorted(FORMATS.keys() - {"simulated"})


@pytest.mark.parametrize("name", WITH_FILES)
def test_what_was_given_is_recognised_and_read(tmp_path, small_data, name):
    first, *others = small_data(tmp_path, name)
    found = recognise(first, others)
    assert found.format.name == name
    tables = read_source(found.config(), tmp_path).whole()
    assert tables.interactions.height > 0
    assert tables.rejected == ()
    assert (tables.items.height > 0) == (name != "ids")


@pytest.mark.parametrize("name", WITH_FILES)
def test_no_particular_format_claims_anothers_data(tmp_path, small_data, name):
    small_data(tmp_path, name)
    sights = [Sight(path) for path in (tmp_path, *tmp_path.rglob("*"))]
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
    for path in (folder, *sorted(folder.iterdir())):
        with pytest.raises(ValueError, match="in no format that is known"):
            recognise(path)


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
