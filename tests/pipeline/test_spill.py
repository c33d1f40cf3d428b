import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.spill import Spill, gathered, table_bytes

rows = st.lists(st.tuples(st.text("abé日:%", max_size=3), st.integers(0, 9)), max_size=60)


def table(events):
    return pl.DataFrame(events, schema={"key": pl.String, "value": pl.Int64}, orient="row")


@given(rows, st.integers(1, 2_000), st.integers(1, 7))
def test_every_row_comes_back_once_and_all_of_a_key_together(tmp_path_factory, events, most, step):
    folder = tmp_path_factory.mktemp("spill") / "parts"
    spill = Spill(folder, "key", most)
    for start in range(0, len(events), step):
        spill.add(table(events[start : start + step]))
    partitions = list(spill.partitions())
    assert sorted(row for part in partitions for row in part.rows()) == sorted(events)
    keys = [set(part["key"]) for part in partitions]
    assert sum(map(len, keys)) == len({key for key, _ in events})
    again = list(spill.partitions())
    assert all(one.equals(other) for one, other in zip(partitions, again, strict=True))
    spill.remove()
    assert not folder.exists()


def test_few_rows_stay_in_memory_and_many_go_to_files(tmp_path):
    spill = Spill(tmp_path / "parts", "key", 4_000)
    spill.add(table([("a", 1)]))
    assert not (tmp_path / "parts").exists()
    spill.add(table([(f"{n}", n) for n in range(1_000)]))
    assert 200 < len(list((tmp_path / "parts").iterdir())) <= 256
    sizes = [table_bytes(part) for part in spill.partitions()]
    assert len(sizes) > 4
    assert max(sizes) < 6_000


def test_partitions_stay_small_however_many_rows_there_are(tmp_path):
    """Files beyond twice the budget are dealt out again; a key is never torn apart."""
    spill = Spill(tmp_path / "parts", "key", 2_000)
    for _ in range(3):
        spill.add(table([(f"{n % 30_000}", n) for n in range(40_000)]))
    partitions = list(spill.partitions())
    assert max(map(table_bytes, partitions)) < 2 * 2_000
    assert sum(part.height for part in partitions) == 120_000
    assert sum(part["key"].n_unique() for part in partitions) == 30_000
    sizes = [part.height for part in spill.partitions()]
    assert sizes == [part.height for part in partitions]


def test_one_key_with_all_rows_is_one_partition(tmp_path):
    spill = Spill(tmp_path / "parts", "key", 1_000)
    for start in range(0, 400, 100):
        spill.add(table([("a", n) for n in range(start, start + 100)]))
    (only,) = spill.partitions()
    assert sorted(only["value"]) == list(range(400))


@pytest.mark.parametrize("most", [1, 100, 10_000])
@given(st.lists(rows, max_size=5))
def test_gathered_tables_hold_the_same_rows_within_the_budget(most, tables):
    found = list(gathered(map(table, tables), most))
    assert [row for one in found for row in one.rows()] == [row for one in tables for row in one]
    # Tables are cut by their mean row; the longest row here is 41 bytes, the shortest 32.
    assert all(one.height == 1 or table_bytes(one) <= most * 41 / 32 for one in found)
