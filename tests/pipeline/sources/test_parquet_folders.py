import datetime

import polars as pl
import pytest

from pipeline.ingest import recognise
from pipeline.sources.parquet_rows import parquet_pieces
from pipeline.sources.registry import FORMATS, read_source, source_fingerprint

FIRST = {"user_id": ["u", "v"], "item_id": [1, 2], "timestamp": [5, 6]}
SECOND = {"user_id": ["u"], "item_id": [3], "timestamp": [7]}
ITEMS = ({"item_id": [1], "title": ["One"]}, {"item_id": [3], "title": ["Three"]})
ROWS = [("u", "1", 5), ("v", "2", 6), ("u", "3", 7)]


def write(folder, *tables, name="part-{:05d}.parquet"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, table in enumerate(tables):
        pl.DataFrame(table).write_parquet(folder / name.format(number))
    return folder


def config(**fields):
    return FORMATS["table"].config.model_validate(fields)


def read(folder, **options):
    return read_source(config(interactions=str(folder), **options), folder.parent).whole()


@pytest.mark.parametrize("name", ["events", "events.parquet", "v1.2/"])
def test_the_files_of_a_folder_are_one_table(tmp_path, name):
    write(tmp_path / name, FIRST, SECOND)
    tables = read_source(config(interactions=name), tmp_path).whole()
    assert tables.interactions.rows() == ROWS
    assert (tables.rows_read, tables.rejected) == (3, ())


def test_interactions_and_items_can_both_be_folders(tmp_path):
    write(tmp_path / "events", FIRST, SECOND)
    write(tmp_path / "items", *ITEMS)
    found = recognise(tmp_path)
    assert found.fields == {
        "interactions": str(tmp_path / "events"), "items": str(tmp_path / "items")
    }  # fmt: skip
    tables = read_source(found.config(), tmp_path).whole()
    assert tables.interactions.rows() == ROWS
    assert tables.items.rows() == [("1", "One"), ("3", "Three")]


def test_folders_below_are_read_and_what_is_not_finished_is_not(tmp_path):
    folder = tmp_path / "events"
    write(folder / "day=2024-01-01", FIRST)
    write(folder / "day=2024-01-02", SECOND)
    write(folder / "_temporary", SECOND)
    write(folder / "day=2024-01-02", SECOND, name=".hidden-{}.parquet")
    (folder / "_SUCCESS").touch()
    assert read(folder).interactions.rows() == ROWS
    assert recognise(folder).fields == {"interactions": str(folder)}


def test_batches_of_long_texts_have_fewer_rows(tmp_path):
    table = {
        "item_id": [f"{n}" for n in range(200)],
        "title": [f"{n} " * 60_000 for n in range(200)],
    }
    write(tmp_path, table, name="items.parquet")
    pieces = list(parquet_pieces(tmp_path / "items.parquet", {"item_id": "item_id", "a": "title"}))
    assert 2 < len(pieces) < 200
    assert [row for piece in pieces for row in piece.fast["item_id"]] == table["item_id"]


def test_a_bad_row_is_named_by_its_file_and_row(tmp_path):
    folder = write(tmp_path / "events", FIRST, SECOND | {"user_id": [""]})
    (rejected,) = read(folder).rejected
    assert (rejected.file.name, rejected.line) == ("part-00001.parquet", 1)
    assert rejected.reason == "the user id is empty"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"user_id": [1]}, r"column 'user_id': Int64, expected String"),
        ({"more": [1]}, r"column 'more': Int64, expected none"),
        ({"timestamp": [datetime.date(2024, 1, 1)]}, r"column 'timestamp': Date, expected Int64"),
    ],
)
def test_a_file_with_other_columns_is_named(tmp_path, other, message):
    folder = write(tmp_path / "events", FIRST, FIRST, SECOND | other)
    with pytest.raises(
        ValueError, match=rf"part-00002\.parquet differs from part-00000.*{message}"
    ):
        read(folder)


def test_a_file_that_lacks_a_column_is_named(tmp_path):
    folder = write(tmp_path / "events", FIRST, {"user_id": ["u"], "item_id": [3]})
    with pytest.raises(ValueError, match=r"part-00001.*'timestamp': absent, expected Int64"):
        read(folder)


def test_a_damaged_file_is_named(tmp_path):
    folder = write(tmp_path / "events", FIRST)
    (folder / "part-00001.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(ValueError, match=r"part-00001\.parquet is not a readable Parquet file"):
        read(folder)


def test_an_empty_folder_is_no_table(tmp_path):
    (tmp_path / "events").mkdir()
    with pytest.raises(ValueError, match=r"events holds no \.parquet file"):
        read(tmp_path / "events")
    with pytest.raises(ValueError, match="is in no format that is known"):
        recognise(tmp_path)


def test_the_fingerprint_is_that_of_all_files(tmp_path):
    folder = write(tmp_path / "events", FIRST, SECOND)
    source = config(interactions=str(folder))
    before = source_fingerprint(source, tmp_path)
    write(folder, SECOND, name="part-00001.parquet")
    assert source_fingerprint(source, tmp_path) == before
    write(folder, FIRST, name="part-00001.parquet")
    assert source_fingerprint(source, tmp_path) != before


def test_files_of_one_table_in_a_folder_are_read_together(tmp_path):
    write(tmp_path, FIRST, SECOND)
    assert recognise(tmp_path).fields == {"interactions": str(tmp_path)}
    write(tmp_path, ITEMS[0], name="titles.parquet")
    with pytest.raises(ValueError, match="is in no format that is known"):
        recognise(tmp_path)


def test_two_files_of_different_columns_are_interactions_and_items(tmp_path):
    write(tmp_path, FIRST, name="a.parquet")
    write(tmp_path, ITEMS[0], name="b.parquet")
    found = recognise(tmp_path)
    assert found.fields["interactions"] == str(tmp_path / "a.parquet")
    assert found.fields["items"] == str(tmp_path / "b.parquet")
