"""Sources in an object store: read as folders are, fetched when they change, mistakes told."""

import json

import polars as pl
import pytest

from pipeline.config import RunConfig
from pipeline.corpus import Corpus
from pipeline.prepare import CORPUS
from pipeline.progress import Progress
from pipeline.run import prepared
from pipeline.storage.bucket import Bucket
from pipeline.storage.local_copy import local_copy
from pipeline.storage.results_copy import put_results

EVENTS = [(f"u{n % 7}", f"i{n % 5}", 1_400_000_000 + n) for n in range(60)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRAREC_CACHE", str(tmp_path / "cache"))


def write_files(folder):
    """A folder of Parquet interactions, and JSON lines with the items."""
    (folder / "events").mkdir(parents=True)
    frame = pl.DataFrame(EVENTS, schema=["user_id", "item_id", "timestamp"], orient="row")
    for part in range(2):
        frame[part::2].write_parquet(folder / "events" / f"{part}.parquet")
    items = [json.dumps({"item_id": f"i{n}", "title": f"Title {n}"}) for n in range(5)]
    (folder / "items.jsonl").write_text("\n".join(items) + "\n")


def corpus_of(place, store):
    source = {
        **{"format": "table", "platform": "shop"},
        **{"interactions": f"{place}/events", "items": f"{place}/items.jsonl"},
    }
    domains = [{"name": "shop", "source": source, "cleaning": {"k_core": 1}}]
    content = {"name": "shop", "store": str(store), "models": ["popularity"], "domains": domains}
    return Corpus.open(prepared(RunConfig.model_validate(content), Progress()) / CORPUS)


def test_a_corpus_is_the_same_from_a_bucket_as_from_a_folder(bucket, tmp_path):
    write_files(tmp_path / "data")
    put_results(tmp_path / "data", Bucket(bucket), last="")
    local = corpus_of(tmp_path / "data", tmp_path / "a")
    remote = corpus_of(bucket, tmp_path / "b")
    assert remote.fingerprint() == local.fingerprint()
    assert list(remote.texts) == list(local.texts)


def test_what_changed_is_fetched_and_nothing_else(bucket, tmp_path, monkeypatch):
    write_files(tmp_path / "data")
    put_results(tmp_path / "data", Bucket(bucket), last="")
    address = f"{bucket}/events"
    copy = local_copy(address)
    assert {path.name for path in copy.iterdir()} == {"0.parquet", "1.parquet"}
    fetched = []
    whole = Bucket.download
    monkeypatch.setattr(
        Bucket, "download", lambda self, key, *more: fetched.append(key) or whole(self, key, *more)
    )
    assert local_copy(address) == copy
    assert fetched == []
    size = (copy / "0.parquet").stat().st_size
    Bucket(bucket).write("events/0.parquet", b"x" * size)
    (copy / "1.parquet").write_bytes(b"cut")
    local_copy(address)
    assert fetched == ["events/0.parquet", "events/1.parquet"]
    assert (copy / "0.parquet").read_bytes() == b"x" * size
    Bucket(bucket).delete(["events/0.parquet"])
    local_copy(address)
    assert {path.name for path in copy.iterdir()} == {"1.parquet"}


def test_a_neighbour_whose_name_begins_alike_is_no_part_of_it(bucket):
    for key in ("events/a.parquet", "events-of-may/b.parquet", "events.jsonl"):
        Bucket(bucket).write(key, b"x")
    copy = local_copy(f"{bucket}/events")
    found = {path.name for path in copy.parent.rglob("*") if path.is_file()}
    assert found == {"a.parquet", ".listing.json"}
    assert local_copy(f"{bucket}/events.jsonl").read_bytes() == b"x"


def test_mistakes_are_one_sentence(bucket, tmp_path):
    with pytest.raises(ValueError, match=r"the file .* is absent; correct the path"):
        corpus_of(bucket, tmp_path / "store")
    assert not (tmp_path / "cache").exists()
    with pytest.raises(ValueError, match="expected an object or a folder"):
        local_copy("s3://bucket")
    Bucket(bucket).write("events/../../outside", b"x")
    with pytest.raises(ValueError, match=r"'events/\.\./\.\./outside' is no path within a folder"):
        local_copy(f"{bucket}/events")
    assert not (tmp_path / "cache").exists()
