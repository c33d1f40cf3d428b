import gzip

import pytest

from pipeline.sources.formats.ids import IdsConfig, read_ids


def read(tmp_path, text: str, name: str = "ids.txt"):
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return read_ids(IdsConfig(path=name), tmp_path).whole()


@pytest.mark.parametrize("name", ["ids.txt", "ids.txt.gz"])
def test_a_user_a_line(tmp_path, name):
    raw = read(tmp_path, "1 10 007 10\n2\tNA  null \n", name)
    assert raw.order == "sequence"
    assert raw.interactions.rows() == [
        ("1", "10", 0), ("1", "007", 1), ("1", "10", 2), ("2", "NA", 0), ("2", "null", 1),
    ]  # fmt: skip
    assert raw.items.height == 0
    assert (raw.rows_read, raw.rejected) == (2, ())


def test_a_user_without_items_or_on_two_lines_is_rejected(tmp_path):
    raw = read(tmp_path, "1 10\n2\n1 11\n3 12\n")
    assert raw.interactions["user_id"].to_list() == ["1", "3"]
    assert [(r.line, r.reason) for r in raw.rejected] == [
        (2, "has a user id but no item ids"),
        (3, "the user stands on an earlier line too"),
    ]


def test_an_empty_file_gives_an_empty_table(tmp_path):
    raw = read(tmp_path, "")
    assert (raw.interactions.height, raw.rows_read) == (0, 0)


@pytest.mark.data
def test_the_published_beauty_file(data_folder):
    raw = read_ids(IdsConfig(path="ids/Beauty.txt"), data_folder).whole()
    assert raw.interactions.height == 198_502
    assert raw.interactions["user_id"].n_unique() == 22_363
    assert raw.interactions["item_id"].n_unique() == 12_101
    assert raw.rejected == ()
