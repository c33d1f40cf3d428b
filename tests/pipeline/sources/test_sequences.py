import gzip

import pytest

from pipeline.sources.formats.sequences import SequencesConfig, read_sequences

ITEMS = "a\tFirst item\tIt is the first.\nb\tSecond item\t\n007\t\t\n"


@pytest.fixture
def read(tmp_path):
    def read(sequences: str, items: str = ITEMS, **options):
        for name, text in (("sequences", sequences), ("items", items)):
            (tmp_path / f"{name}.tsv.gz").write_bytes(gzip.compress(text.encode()))
        return read_sequences(SequencesConfig(path=".", **options), tmp_path).whole()

    return read


def test_histories_with_times(read):
    raw = read("u\ta b\t30 20\nNA\t007 a a\t1 1 5\n")
    assert raw.order == "time"
    assert raw.interactions.rows() == [
        ("u", "a", 30), ("u", "b", 20), ("NA", "007", 1), ("NA", "a", 1), ("NA", "a", 5),
    ]  # fmt: skip
    assert (raw.rows_read, raw.rejected) == (5, ())


def test_without_times_the_place_in_the_row_is_the_order(read):
    raw = read("u\tb a b\t\nnull\ta\t\n")
    assert raw.order == "sequence"
    assert raw.interactions.rows() == [
        ("u", "b", 0),
        ("u", "a", 1),
        ("u", "b", 2),
        ("null", "a", 0),
    ]


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        (("title", "description"), ["First item. It is the first.", "Second item", ""]),
        (("title",), ["First item", "Second item", ""]),
        (("description", "title"), ["It is the first. First item", "Second item", ""]),
    ],
)
def test_texts_are_the_fields_asked_for(read, fields, texts):
    items = read("u\ta\t1\n", text_fields=fields).items
    assert items.rows() == list(zip(["a", "b", "007"], texts, strict=True))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("u\ta b", "expected 3 fields"),
        ("u\ta\t1\t2", "expected 3 fields"),
        ("\ta\t1", "user id is empty"),
        ("u\ta  b\t1 2 3", "an item id (ids are separated by one space) is empty"),
        ("u\t\t1", "an item id (ids are separated by one space) is empty"),
        ("u\ta b\t1", "not as many times as items"),
        ("u\ta b\t1 NaN", "not a whole number"),
        ("u\ta b\t1 2.5", "not a whole number"),
        ("u\ta b\t1 ", "not a whole number"),
        ("u\ta\t", "has no times, although other rows have"),
        ("u\ta\t1405296000000", "not in unix seconds"),
    ],
)
def test_a_bad_row_is_rejected_with_its_line_and_reason(read, line, reason):
    raw = read(f"v\ta\t5\n{line}\nw\tb\t6\n")
    assert raw.interactions.rows() == [("v", "a", 5), ("w", "b", 6)]
    (rejected,) = raw.rejected
    assert (rejected.file.name, rejected.line) == ("sequences.tsv.gz", 2)
    assert reason in rejected.reason
    assert rejected.row == line


def test_a_user_on_two_lines_is_one_history_with_times_and_a_fault_without(read):
    assert read("u\ta\t5\nu\tb\t6\n").interactions.height == 2
    raw = read("u\ta\t\nu\tb\t\n")
    assert raw.interactions.rows() == [("u", "a", 0)]
    assert [r.line for r in raw.rejected] == [2]


def test_a_bad_item_row_is_rejected_in_the_items_file(read):
    raw = read("u\ta\t5\n", items="a\tTitle\n\tNo id\t\nb\tGood\t\n")
    assert raw.items.rows() == [("b", "Good")]
    assert [(r.file.name, r.line) for r in raw.rejected] == [
        ("items.tsv.gz", 1),
        ("items.tsv.gz", 2),
    ]


def test_empty_files_give_empty_tables(read):
    raw = read("", items="")
    assert (raw.interactions.height, raw.items.height, raw.rows_read) == (0, 0, 0)
    assert raw.interactions.columns == ["user_id", "item_id", "timestamp"]


def test_an_absent_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no_such.sequences\.tsv\.gz is absent.*HYDRAREC_DATA"):
        read_sequences(SequencesConfig(path="no_such"), tmp_path)
