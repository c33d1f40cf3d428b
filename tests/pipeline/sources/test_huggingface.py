import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.ingest import recognise
from pipeline.sources.hugging_face import hub_tables, pieces_of, streamed_tables
from pipeline.sources.registry import FORMATS, read_source, source_fingerprint

datasets = pytest.importorskip(
    "datasets", reason="needs datasets: pip install 'hydrarec[datasets]'"
)
datasets.disable_progress_bars()

TRAIN = {"user_id": ["u", "v"], "item_id": [1, 2], "timestamp": [5, 6]}
TEST = {"user_id": ["u"], "item_id": [3], "timestamp": [7]}
ITEMS = {"item_id": [1, 3], "title": ["One", "Three"], "tags": [["a", "b"], []]}
ROWS = [("u", "1", 5), ("v", "2", 6), ("u", "3", 7)]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def table(rows):
    return datasets.Dataset.from_dict(rows)


@pytest.fixture
def splits(tmp_path):
    folder = tmp_path / "events"
    datasets.DatasetDict({"train": table(TRAIN), "test": table(TEST)}).save_to_disk(folder)
    return folder


def config(**fields):
    return FORMATS["huggingface"].config.model_validate(fields)


def read(folder, **options):
    given = {"interactions": {"path": folder.name} | options.pop("table", {})} | options
    return read_source(config(**given), folder.parent).whole()


def test_all_splits_are_one_domains_interactions(splits):
    tables = read(splits)
    assert tables.interactions.rows() == ROWS
    assert (tables.order, tables.items.height, tables.rejected) == ("time", 0, ())
    assert read(splits, table={"split": "test"}).interactions.rows() == ROWS[2:]


def test_items_and_other_columns(splits, tmp_path):
    table(ITEMS).save_to_disk(tmp_path / "titles", num_shards=2)
    columns = {"text": ["title", "tags"]}
    items = read(splits, items={"path": "titles"}, columns=columns).items
    assert items.rows() == [("1", "One. a, b"), ("3", "Three")]


def test_rows_that_were_selected_before_saving_are_read_alone(tmp_path):
    table(TRAIN).select([1]).save_to_disk(tmp_path / "one")
    assert read(tmp_path / "one").interactions.rows() == ROWS[1:2]


def test_a_bad_row_is_named_by_its_place(tmp_path):
    table(TRAIN | {"user_id": ["u", ""]}).save_to_disk(tmp_path / "one")
    (rejected,) = read(tmp_path / "one").rejected
    assert (rejected.file.name, rejected.line) == ("one", 2)
    assert rejected.reason == "the user id is empty"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"user": "person"}}, r"events/train has no column 'person': it has 'user_id'"),
        ({"table": {"split": "dev"}}, r"events has no split 'dev': it has train, test"),
    ],
)
def test_what_is_not_there_is_named(splits, options, message):
    with pytest.raises(ValueError, match=message):
        read(splits, **options)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either `path`"),
        ({"path": "a", "hub": "a/b", "revision": COMMIT}, "either `path`"),
        ({"hub": "a/b"}, "has no `revision`"),
        ({"hub": "a/b", "revision": "main"}, "String should match pattern"),
        ({"hub": "../a", "revision": COMMIT}, "String should match pattern"),
        ({"path": "a", "subset": "b"}, "revision and subset are for `hub`"),
    ],
)
def test_a_mistake_in_the_config_is_named(fields, message):
    with pytest.raises(ValidationError, match=message):
        config(interactions=fields)


def test_another_folder_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="other is not a folder that save_to_disk made"):
        read(tmp_path / "other")
    with pytest.raises(ValueError, match="no format that is known"):
        recognise(tmp_path / "other")


def test_a_damaged_folder_is_refused(tmp_path):
    table(TRAIN).save_to_disk(tmp_path / "one")
    (data,) = (tmp_path / "one").glob("*.arrow")
    data.write_bytes(data.read_bytes()[:40])
    with pytest.raises(ValueError, match="one is not a whole folder of save_to_disk"):
        read(tmp_path / "one")
    data.unlink()
    with pytest.raises(ValueError, match="one is not a whole folder of save_to_disk"):
        read(tmp_path / "one")


def test_a_damaged_description_is_refused(tmp_path):
    table(TRAIN).save_to_disk(tmp_path / "one")
    (tmp_path / "one" / "dataset_info.json").write_text("{")
    with pytest.raises(ValueError, match="one is not a whole folder of save_to_disk"):
        read(tmp_path / "one")


@pytest.mark.parametrize("stray", ["../two/data.arrow", "/etc/passwd", "https://a/b.arrow", 7])
def test_a_folder_that_points_out_of_itself_is_refused(tmp_path, stray):
    table(TRAIN).save_to_disk(tmp_path / "one")
    state = tmp_path / "one" / "state.json"
    fields = json.loads(state.read_text())
    fields["_data_files"][0]["filename"] = stray
    state.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="points out of its folder"):
        read(tmp_path / "one")


def test_recognised_with_its_items(splits, tmp_path):
    table(ITEMS).save_to_disk(tmp_path / "titles")
    found = recognise(splits, [tmp_path / "titles"])
    assert found.format.name == "huggingface"
    assert found.fields == {
        "interactions": {"path": str(splits)}, "items": {"path": str(tmp_path / "titles")}
    }  # fmt: skip
    assert read_source(found.config(), tmp_path).whole().interactions.rows() == ROWS


def test_splits_with_other_columns_are_tables_of_their_own(tmp_path):
    both = {"events": table(TRAIN), "titles": table(ITEMS)}
    datasets.DatasetDict(both).save_to_disk(tmp_path / "both")
    found = recognise(tmp_path / "both")
    place = {"path": str(tmp_path / "both")}
    assert found.fields == {
        "interactions": place | {"split": "events"}, "items": place | {"split": "titles"}
    }  # fmt: skip
    tables = read_source(found.config(), tmp_path).whole()
    assert tables.interactions.rows() == ROWS[:2]
    assert tables.items.rows() == [("1", "One"), ("3", "Three")]


def test_the_fingerprint_is_that_of_the_contents_and_the_commit(splits, tmp_path):
    local = config(interactions={"path": "events"})
    before = source_fingerprint(local, tmp_path)
    splits.rename(tmp_path / "moved")
    moved = config(interactions={"path": "moved"})
    assert source_fingerprint(moved, tmp_path) == before
    (tmp_path / "moved" / "train" / "state.json").write_text("{}")
    assert source_fingerprint(moved, tmp_path) != before
    a, b = (config(interactions={"hub": "a/b", "revision": r}) for r in (COMMIT, COMMIT[::-1]))
    assert source_fingerprint(a, tmp_path) != source_fingerprint(b, tmp_path)


def builder_of(folder):
    return datasets.load_dataset_builder(str(folder))


def test_a_repository_of_parquet_files_is_streamed(tmp_path):
    (tmp_path / "data").mkdir()
    table(TRAIN).to_parquet(tmp_path / "data" / "train-00000.parquet")
    table(TEST).to_parquet(tmp_path / "data" / "test-00000.parquet")
    tables = streamed_tables(builder_of(tmp_path), f"{tmp_path}/")
    columns = {"user_id": "user_id", "item_id": "item_id"}
    pieces = list(pieces_of(tables, Path("a/b"), columns))
    assert [piece.fast.rows() for piece in pieces] == [[("u", "1"), ("v", "2")], [("u", "3")]]
    assert [str(piece.slow().file) for piece in pieces] == ["a/b/train", "a/b/test"]


def test_a_repository_that_points_out_of_itself_is_refused(tmp_path):
    table(TRAIN).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="points out of itself, to "):
        streamed_tables(builder_of(tmp_path), f"hf://datasets/a/b@{COMMIT}/")


def test_a_repository_of_files_without_types_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text("user_id,item_id\n007,1\n")
    with pytest.raises(ValueError, match="are csv, expected Parquet or Arrow"):
        streamed_tables(builder_of(tmp_path), f"{tmp_path}/")


def test_without_the_hub_there_is_one_sentence(monkeypatch, tmp_path):
    assert datasets.config.HF_HUB_OFFLINE
    monkeypatch.chdir(tmp_path)
    source = config(interactions={"hub": "nobody/nothing", "revision": COMMIT})
    with pytest.raises(
        ValueError, match=r"nobody/nothing cannot be read .* HF_HUB_OFFLINE"
    ) as told:
        read_source(source, tmp_path).whole()
    assert "\n" not in str(told.value)
    (tmp_path / "nobody" / "nothing").mkdir(parents=True)
    with pytest.raises(ValueError, match="is a file or folder here too"):
        hub_tables("nobody/nothing", None, COMMIT)


def test_without_the_package_the_extra_is_named(monkeypatch, splits):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "datasets" else found(name)
    )
    with pytest.raises(ValueError, match=r"pip install 'hydrarec\[datasets\]'"):
        read(splits)


def test_nobody_else_imports_the_package(tmp_path):
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\nu,a,1\n")
    program = (
        "import sys; from pathlib import Path; from pipeline.ingest import recognise, read; "
        f"read(recognise(Path({str(tmp_path / 'events.csv')!r})), Path()).whole(); "
        "assert 'datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ.copy())
