import json

import pytest

from pipeline.config import RunConfig
from pipeline.item_tables import read_catalogue
from pipeline.item_vectors import cache_place, pinned_adapter
from pipeline.paths import project_root


@pytest.fixture
def config(tmp_path):
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\nu,a,1\nu,b,2\n")
    (tmp_path / "toys.csv").write_text(
        'item_id,title\nb,"  A red   kite "\na,<b>Train</b> set\na,Train\nc,never bought\nd,\n'
    )
    (tmp_path / "books.csv").write_text("item_id,title\na,A novel\n")
    domains = [
        {
            "name": name,
            "source": {"format": "table", "interactions": "events.csv", "items": f"{name}.csv"},
            "cleaning": {"max_text_chars": 12, "max_bad_rows": 1},
        }
        for name in ("toys", "books")
    ]
    return RunConfig.model_validate({"domains": domains})


def test_all_items_of_all_domains_with_texts_as_a_run_reads_them(config, tmp_path):
    catalogue = read_catalogue(config, tmp_path, tmp_path / "quarantine")
    assert catalogue.items.to_pylist() == ["toys/a", "toys/b", "toys/c", "toys/d", "books/a"]
    assert catalogue.texts == ["Train set", "A red kite", "never bought", "", "A novel"]
    assert catalogue.of.tolist() == [0, 0, 0, 0, 1]
    assert not (tmp_path / "quarantine").exists()


def test_rows_that_cannot_be_read_are_listed_and_too_many_stop_it(config, tmp_path):
    with (tmp_path / "toys.csv").open("a") as stream:
        stream.write(",no id\n")
    read_catalogue(config, tmp_path, tmp_path / "quarantine")
    (line,) = (tmp_path / "quarantine" / "toys.jsonl").read_text().splitlines()
    assert json.loads(line)["line"] == 7
    with (tmp_path / "toys.csv").open("a") as stream:
        stream.write(",no id\n")
    with pytest.raises(ValueError, match="2 of the first 7 rows cannot be read"):
        read_catalogue(config, tmp_path, tmp_path / "quarantine")


def test_where_the_cache_is(tmp_path):
    assert cache_place(None, tmp_path) == str(tmp_path / "vectors")
    assert cache_place("s3://bucket/vectors", tmp_path) == "s3://bucket/vectors"
    assert cache_place("runs/vectors", tmp_path) == str(project_root() / "runs" / "vectors")
    assert cache_place("/data/vectors", tmp_path) == "/data/vectors"


def test_a_relative_adapter_is_the_projects(config):
    llm = config.item_llm
    assert pinned_adapter(llm) is None
    pinned = llm.model_copy(update={"adapter": "runs/x/adapter"})
    assert pinned_adapter(pinned) == project_root() / "runs" / "x" / "adapter"
    assert config.results_hash() == config.model_copy(update={"vectors": "v"}).results_hash()
