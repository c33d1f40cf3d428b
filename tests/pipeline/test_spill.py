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
    with Spill(folder, "key", most) as spill:
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
    with Spill(tmp_path / "parts", "key", 4_000) as spill:
        spill.add(table([("a", 1)]))
        assert not (tmp_path / "parts").exists()
        spill.add(table([(f"{n}", n) for n in range(1_000)]))
        assert len(list((tmp_path / "parts").iterdir())) == 64
    sizes = [table_bytes(part) for part in spill.partitions()]
    assert len(sizes) > 4
    assert max(sizes) < 6_000


@pytest.mark.parametrize("most", [1, 100, 10_000])
@given(st.lists(rows, max_size=5))
def test_gathered_tables_hold_the_same_rows_within_the_budget(most, tables):
    found = list(gathered(map(table, tables), most))
    assert [row for one in found for row in one.rows()] == [row for one in tables for row in one]
    # Tables are cut by their mean row; the longest row here is 41 bytes, the shortest 32.
    assert all(one.height == 1 or table_bytes(one) <= most * 41 / 32 for one in found)
