import datetime
import gzip
import json

import numpy as np
import polars as pl
import pytest

from pipeline.sources.formats.table import TableConfig, read_table

EVENTS = [("007", "NA", "5"), ("u, 1", 'say "hi"', "6"), ("null", "b", "7")]
ITEMS = [("NA", "Not available", "d1"), ('say "hi"', "", "d, 2"), ("b", "Bee", "")]


def write(folder, name, header, rows):
    file = folder / name
    kind = name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pl.DataFrame(rows, schema=header, orient="row").write_parquet(file)
        return
    if kind in ("jsonl", "ndjson"):
        text = "".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in rows)
    elif kind == "tsv":
        text = "".join("\t".join(row) + "\n" for row in [header, *rows])
    else:
        text = pl.DataFrame(rows, schema=header, orient="row").write_csv()
    data = text.encode()
    file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


@pytest.mark.parametrize(
    "ending", ["csv", "tsv", "jsonl", "ndjson", "csv.gz", "jsonl.gz", "parquet"]
)
def test_every_kind_gives_the_same_tables(tmp_path, ending):
    write(tmp_path, f"events.{ending}", ["u", "i", "t"], EVENTS)
    write(tmp_path, f"items.{ending}", ["id", "title", "more"], ITEMS)
    columns = {"user": "u", "item": "i", "timestamp": "t", "items_item": "id",
               "text": ["title", "more"]}  # fmt: skip
    config = TableConfig(interactions=f"events.{ending}", items=f"items.{ending}", columns=columns)
    raw = read_table(config, tmp_path).whole()
    assert raw.interactions.rows() == [(u, i, int(t)) for u, i, t in EVENTS]
    assert raw.items.rows() == [("NA", "Not available. d1"), ('say "hi"', "d, 2"), ("b", "Bee")]
    assert (raw.order, raw.rows_read, raw.rejected) == ("time", 6, ())


def read(tmp_path, text, name="events.csv", **options):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    config = {"interactions": name} | options
    return read_table(TableConfig.model_validate(config), tmp_path).whole()


def test_without_a_time_column_the_rows_of_a_user_are_in_order(tmp_path):
    text = "user_id,item_id\nu,b\nv,c\nu,a\n"
    raw = read(tmp_path, text, columns={"timestamp": None})
    assert raw.order == "sequence"
    assert raw.interactions.rows() == [("u", "b", 0), ("v", "c", 1), ("u", "a", 2)]
    assert raw.items.height == 0


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("u,a", "more or fewer fields"),
        ("u,a,5,6", "more or fewer fields"),
        (",a,5", "user id is empty"),
        ("u,,5", "item id is empty"),
        ("u,a,", "not a number of unix seconds"),
        ("u,a,NaN", "not a number of unix seconds"),
        ("u,a,inf", "not a number of unix seconds"),
        ("u,a,soon", "not a number of unix seconds"),
        ("u,a,1405296000000", "is its unit right?"),
        ('u,"a,5', "a quote that is not closed"),
        ('u,"a"b,5', "not valid CSV"),
    ],
)
def test_a_bad_row_is_rejected_with_its_line_and_reason(tmp_path, row, reason):
    raw = read(tmp_path, f'user_id,item_id,timestamp\nv,a,1\n{row}\nw,"b ""B""",2\n')
    assert raw.interactions.rows() == [("v", "a", 1), ("w", 'b "B"', 2)]
    (rejected,) = raw.rejected
    assert rejected.line == 3
    assert reason in rejected.reason
    assert raw.rows_read == 3


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"user_id": "u", "item_id": "a", "timestamp": 1', "not a JSON object"),
        ("[1, 2]", "not a JSON object"),
        ('{"user_id": "u", "item_id": "a", "timestamp": NaN}', "not a JSON object"),
        ('{"user_id": {"x": 1}, "item_id": "a", "timestamp": 1}', "neither a text nor a whole"),
        ('{"user_id": "u", "item_id": "a", "timestamp": {"x": 1}}', "not a JSON object"),
        ('{"user_id": "\\ud800", "item_id": "a", "timestamp": 1}', "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        ('{"item_id": "a", "timestamp": 1}', "user id is empty"),
        ('{"user_id": "u", "item_id": null, "timestamp": 1}', "item id is empty"),
    ],
)
def test_a_bad_json_line_is_rejected(tmp_path, row, reason):
    good = '{"user_id": 7, "item_id": "a", "timestamp": 1}'
    raw = read(tmp_path, f"{good}\n{row}\n{good}\n", "events.jsonl")
    assert raw.interactions.rows() == [("7", "a", 1)] * 2
    assert [r.line for r in raw.rejected] == [2]
    assert reason in raw.rejected[0].reason


@pytest.mark.parametrize(
    ("unit", "text", "seconds"),
    [
        ("s", "1405296000", 1405296000),
        ("s", "1405296000.75", 1405296000),
        ("s", "-5", -5),
        ("ms", "1405296000999", 1405296000),
        ("ms", "-1", -1),
        ("iso", "2014-07-14T00:00:00Z", 1405296000),
        ("iso", "2014-07-14 02:00:00+02:00", 1405296000),
        ("iso", "2014-07-14", 1405296000),
        ("iso", "1969-12-31T23:59:59.5", -1),
    ],
)
def test_units_of_time(tmp_path, unit, text, seconds):
    raw = read(tmp_path, f"user_id,item_id,timestamp\nu,a,{text}\n",
               columns={"timestamp_unit": unit})  # fmt: skip
    assert raw.interactions["timestamp"].to_list() == [seconds]


@pytest.mark.parametrize("unit", ["s", "ms", "iso"])
def test_parquets_own_times_need_no_unit(tmp_path, unit):
    moment = datetime.datetime(2014, 7, 14, tzinfo=datetime.UTC)
    pl.DataFrame({"user_id": [1], "item_id": [2], "timestamp": [moment]}).write_parquet(
        tmp_path / "e.parquet"
    )
    config = {"interactions": "e.parquet", "columns": {"timestamp_unit": unit}}
    raw = read_table(TableConfig.model_validate(config), tmp_path).whole()
    assert raw.interactions.rows() == [("1", "2", 1405296000)]


def test_ids_that_became_floats_are_refused(tmp_path):
    pl.DataFrame({"user_id": [7.0], "item_id": [2], "timestamp": [1]}).write_parquet(
        tmp_path / "e.parquet"
    )
    with pytest.raises(ValueError, match=r"'user_id' are Float64, so that 7 reads 7\.0"):
        read_table(TableConfig(interactions="e.parquet"), tmp_path).whole()


def test_lists_of_texts_are_joined(tmp_path):
    row = {"item_id": "a", "title": ["One", None, "two"]}
    pl.DataFrame([row]).write_parquet(tmp_path / "i.parquet")
    (tmp_path / "i.jsonl").write_text(json.dumps(row) + "\n")
    for items in ("i.parquet", "i.jsonl"):
        raw = read(tmp_path, "user_id,item_id,timestamp\n", items=items)
        assert raw.items.rows() == [("a", "One, two")]


def test_a_header_alone_gives_an_empty_table_and_an_empty_file_is_refused(tmp_path):
    assert read(tmp_path, "user_id,item_id,timestamp\n").interactions.height == 0
    with pytest.raises(ValueError, match=r"events\.csv is empty: expected a header"):
        read(tmp_path, "")


def test_an_absent_column_names_those_that_are_there(tmp_path):
    with pytest.raises(ValueError, match=r"no column 'user_id': it has 'user', 'item_id'"):
        read(tmp_path, "user,item_id,timestamp\nu,a,1\n")


def test_a_byte_order_mark_and_crlf_change_nothing(tmp_path):
    raw = read(tmp_path, b"\xef\xbb\xbfuser_id,item_id,timestamp\r\nu,a,1\r\n")
    assert raw.interactions.rows() == [("u", "a", 1)]


@pytest.mark.parametrize("name", ["a.xlsx", "a.parquet.gz", "a.2"])
def test_an_unknown_ending_is_refused(name):
    with pytest.raises(ValueError, match=r"unknown ending: expected \.csv"):
        TableConfig(interactions=name)


def test_bytes_that_are_no_parquet_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        read(tmp_path, b"PAR1 nonsense", "e.parquet")


def test_a_file_without_an_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'events' has an unknown ending"):
        read(tmp_path, "user_id,item_id,timestamp\n", "events")


@pytest.mark.parametrize("group_rows", [100_000, 1_500_000])
def test_a_parquet_file_is_read_as_a_stream_whatever_its_row_groups(tmp_path, group_rows):
    """Nothing of it stays: not what was read ahead, not the pages of one large row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = np.random.default_rng(0).integers(0, 1 << 30, (3, 1_500_000))
    columns = dict(zip(("user_id", "item_id", "timestamp"), numbers, strict=True))
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=group_rows, use_dictionary=False)
    del numbers, columns
    before, most, rows = pa.total_allocated_bytes(), 0, 0
    for part in read_table(TableConfig(interactions=str(path)), tmp_path).interactions:
        most = max(most, pa.total_allocated_bytes() - before)
        rows += part.rows.height
    assert rows == 1_500_000
    assert most < path.stat().st_size / 2
