import pytest

from pipeline.ingest import recognise
from pipeline.sources.registry import FORMATS, read_source

EVENTS = "item_id,user_id,timestamp\nB1,A1,1405296000\nB2,A2,1405382400\n"
BOOKS = (
    'item_id,description,title\nB1,"A house, ""haunted""\nby bats",Quiet Hours\nB2,,Loud Nights\n'
)
PIXELS = "item_id,title,tag,description\nv1,A Tour,Travel,Of the coast\nv2,Soup,Food,\n"


def write_pair(folder, name="tiny_books.csv", events=EVENTS, items=BOOKS):
    for part, text in (("dataset", events), ("information", items)):
        (folder / part).mkdir(exist_ok=True)
        (folder / part / name).write_text(text)
    return folder / "dataset" / name


def read(folder, **options):
    given = {"interactions": "dataset/tiny_books.csv"} | options
    return read_source(FORMATS["hllm"].config.model_validate(given), folder).whole()


def test_interactions_and_texts(tmp_path):
    write_pair(tmp_path)
    tables = read(tmp_path, information="information/tiny_books.csv")
    assert tables.interactions.rows() == [("A1", "B1", 1405296000), ("A2", "B2", 1405382400)]
    assert tables.items.rows() == [
        ("B1", 'Quiet Hours. A house, "haunted"\nby bats'), ("B2", "Loud Nights")
    ]  # fmt: skip
    assert (tables.order, tables.rejected) == ("time", ())


def test_a_bad_row_is_named_with_its_line(tmp_path):
    write_pair(tmp_path, events=EVENTS + "B3,A1,soon\nB3,A1\n")
    rejected = read(tmp_path).rejected
    assert [row.line for row in rejected] == [4, 5]
    assert "not a number of unix seconds" in rejected[0].reason


def test_an_absent_column_is_named(tmp_path):
    write_pair(tmp_path, items="item_id,description\nB1,x\n")
    with pytest.raises(ValueError, match=r"tiny_books\.csv has no column 'title'"):
        read(tmp_path, information="information/tiny_books.csv")


@pytest.mark.parametrize("pointed_at", [".", "dataset", "dataset/tiny_books.csv"])
def test_recognised_by_its_layout(tmp_path, pointed_at):
    file = write_pair(tmp_path)
    found = recognise((tmp_path / pointed_at).resolve())
    assert found.format.name == "hllm"
    assert found.fields == {
        "interactions": str(file), "information": str(tmp_path / "information" / file.name)
    }  # fmt: skip


def test_pixelrecs_tags_and_milliseconds_are_seen(tmp_path):
    events = "item_id,user_id,timestamp\nv1,u,1661421600123\n"
    write_pair(tmp_path, events=events, items=PIXELS)
    found = recognise(tmp_path)
    assert found.fields["timestamp_unit"] == "ms"
    assert found.fields["text"] == ["title", "tag", "description"]
    tables = read_source(found.config(), tmp_path).whole()
    assert tables.interactions.rows() == [("u", "v1", 1661421600)]
    assert tables.items["text"].to_list() == ["A Tour. Travel. Of the coast", "Soup. Food"]


def test_titles_alone_are_enough(tmp_path):
    write_pair(tmp_path, items="item_id,title\nB1,Quiet Hours\n")
    found = recognise(tmp_path)
    assert found.fields["text"] == ["title"]
    assert read_source(found.config(), tmp_path).whole().items.rows() == [("B1", "Quiet Hours")]


def test_two_data_sets_are_two_domains(tmp_path):
    write_pair(tmp_path)
    write_pair(tmp_path, "other.csv")
    with pytest.raises(ValueError, match=r"2 data sets.* dataset/other\.csv, dataset/tiny_books"):
        recognise(tmp_path)


def test_other_pairs_of_csv_files_are_not_claimed(tmp_path):
    (tmp_path / "events.csv").write_text(EVENTS)
    (tmp_path / "information.csv").write_text(BOOKS)
    assert recognise(tmp_path).format.name == "table"
    file = write_pair(tmp_path, events="user_id,item_id,timestamp\nA1,B1,1405296000\n")
    assert recognise(file).format.name == "table"
