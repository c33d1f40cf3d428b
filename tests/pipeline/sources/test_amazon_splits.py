import gzip
import json

import pytest
from pydantic import ValidationError

from pipeline.ingest import recognise
from pipeline.sources.registry import FORMATS, read_source

HEADER = "user_id,parent_asin,rating,timestamp"
PARTS = {
    "train": ["A1,B1,5.0,1405296000123", "A2,B2,2.0,1405296000999", "A1,B3,4.0,1405382400000"],
    "valid": ["A1,B2,5.0,1405468800000"],
    "test": ["A1,B4,1.0,1405555200000"],
}
EVENTS = [
    ("A1", "B1", 1405296000), ("A2", "B2", 1405296000), ("A1", "B3", 1405382400),
    ("A1", "B2", 1405468800), ("A1", "B4", 1405555200),
]  # fmt: skip
ITEMS = [
    {"parent_asin": "B1", "title": "Oak Desk", "features": ["Solid"], "description": []},
    {"parent_asin": "B2", "title": "Pine Desk", "features": [], "description": ["Light", "Cheap"]},
]


def write_split(folder, category="Oak_Desks", *, history=False, ending="csv"):
    files = []
    for part, rows in PARTS.items():
        rows = [f"{row},B9 B8" for row in rows] if history else rows
        header = f"{HEADER},history" if history else HEADER
        file = folder / f"{category}.{part}.{ending}"
        data = "".join(line + "\n" for line in [header, *rows]).encode()
        file.write_bytes(gzip.compress(data) if ending.endswith(".gz") else data)
        files.append(file)
    return files


def read(files, **options):
    given = {"interactions": [str(file) for file in files]} | options
    config = FORMATS["amazon_splits"].config.model_validate(given)
    return read_source(config, files[0].parent).whole()


@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_the_parts_are_one_domains_interactions(tmp_path, history, ending):
    tables = read(write_split(tmp_path, history=history, ending=ending))
    assert tables.interactions.rows() == EVENTS
    assert (tables.order, tables.items.height, tables.rejected) == ("time", 0, ())


def test_metadata_give_the_texts_as_they_do_for_raw_reviews(tmp_path):
    metadata = tmp_path / "meta_Oak_Desks.jsonl.gz"
    with gzip.open(metadata, "wt") as stream:
        stream.writelines(json.dumps(item) + "\n" for item in ITEMS)
    tables = read(write_split(tmp_path), metadata=str(metadata))
    assert tables.items.rows() == [("B1", "Oak Desk. Solid"), ("B2", "Pine Desk. Light, Cheap")]
    assert recognise(tmp_path).fields["metadata"] == str(metadata)


def test_low_ratings_are_left_out_if_asked(tmp_path):
    tables = read(write_split(tmp_path), min_rating=4)
    assert tables.interactions["item_id"].to_list() == ["B1", "B3", "B2"]
    assert tables.left_out == 2


def test_a_bad_row_is_named_by_file_and_line(tmp_path):
    files = write_split(tmp_path)
    files[1].write_text(f"{HEADER}\nA1,B2,5.0\nA1,B2,5.0,1405468800000\nA1,,5.0,1405468800000\n")
    files[2].write_text(f"{HEADER}\nA1,B4,1.0,1405555200000\n")
    rejected = read(files).rejected
    assert [(row.file.name, row.line) for row in rejected[:2]] == [
        ("Oak_Desks.valid.csv", 2), ("Oak_Desks.valid.csv", 4)
    ]  # fmt: skip
    assert "more or fewer fields" in rejected[0].reason
    assert len(rejected) == 2


def test_a_header_that_lacks_a_column_is_named(tmp_path):
    files = write_split(tmp_path)
    files[2].write_text("user_id,asin,rating,timestamp\n")
    with pytest.raises(ValueError, match=r"Oak_Desks\.test\.csv has no column 'parent_asin'"):
        read(files)


def test_a_part_cannot_be_forgotten(tmp_path):
    files = write_split(tmp_path)
    with pytest.raises(ValidationError, match=r"Oak_Desks\.train\.csv but not Oak_Desks\.test"):
        read(files[:2])
    files[1].unlink()
    with pytest.raises(ValueError, match=r"Oak_Desks\.valid\.csv is absent"):
        read(files)


@pytest.mark.parametrize("pointed_at", ["the folder", "a part"])
def test_recognised_with_all_its_parts(tmp_path, pointed_at):
    files = write_split(tmp_path)
    (tmp_path / "notes.txt").write_text("as published\n")
    found = recognise(tmp_path if pointed_at == "the folder" else files[1])
    assert found.format.name == "amazon_splits"
    assert found.fields == {"interactions": [str(file) for file in files]}


def test_the_file_before_any_split_is_recognised(tmp_path):
    file = tmp_path / "Oak_Desks.csv"
    file.write_text(f"{HEADER}\nA1,B1,5.0,1405296000123\n")
    found = recognise(file)
    assert (found.format.name, found.fields) == ("amazon_splits", {"interactions": [str(file)]})
    assert read([file]).interactions.rows() == EVENTS[:1]


def test_a_folder_of_several_categories_is_several_domains(tmp_path):
    write_split(tmp_path)
    write_split(tmp_path, "Pine_Desks")
    with pytest.raises(ValueError, match=r"holds 2 categories .* such as Oak_Desks\.test\.csv"):
        recognise(tmp_path)


@pytest.mark.parametrize(
    "header", ["user_id,item_id,rating,timestamp", "user_id,parent_asin,timestamp,rating,more"]
)
def test_another_csv_file_is_not_claimed(tmp_path, header):
    (tmp_path / "ratings.csv").write_text(f"{header}\n")
    assert recognise(tmp_path).format.name == "table"
