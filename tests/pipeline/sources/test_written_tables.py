"""Tables written as Parquet files are the source's, whole, and the same bytes each time."""

import numpy as np
import polars as pl
import pytest

from pipeline.ingest import recognise
from pipeline.sources import SimulatedConfig, read_source
from pipeline.sources.simulated import read_simulated
from pipeline.sources.tables import Part, RawTables, RejectedRow
from pipeline.sources.written_tables import write_tables

SHOP = SimulatedConfig(
    catalogue="games", population=300, share=0.7, user_overlap=0.5, items=60, empty_titles=0.2
)


def test_what_is_written_is_what_the_source_gives(tmp_path):
    direct = read_simulated(SHOP).whole()
    assert write_tables(read_simulated(SHOP, part_rows=90), tmp_path / "a") == (
        direct.interactions.height,
        direct.items.height,
    )
    found = recognise(tmp_path / "a")
    assert found.format.name == "table"
    again = read_source(found.config(), tmp_path).whole()
    assert again.interactions.equals(direct.interactions)
    assert again.items.equals(direct.items)


def test_equal_configs_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write_tables(read_simulated(SHOP), tmp_path / name)
    for file in ("interactions.parquet", "items.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_many_parts_become_few_row_groups(tmp_path):
    import pyarrow.parquet as pq

    rows = pl.DataFrame(
        {"user_id": ["u"] * 1_000, "item_id": ["i"] * 1_000, "timestamp": np.arange(1_000)}
    )
    write_tables(RawTables("time", [Part(rows, 1_000)] * 500, ()), tmp_path / "a")
    file = pq.ParquetFile(tmp_path / "a" / "interactions.parquet")
    assert file.metadata.num_rows == 500_000
    assert file.metadata.num_row_groups < 4
    assert pl.read_parquet(tmp_path / "a" / "items.parquet").is_empty()


def test_half_a_table_is_never_there_and_nothing_is_overwritten(tmp_path):
    bad = RejectedRow.of(tmp_path / "f.csv", 3, "the item id is empty", "u,,3")
    parts = iter([*read_simulated(SHOP).interactions, Part(pl.DataFrame(), 1, (bad,))])
    with pytest.raises(ValueError, match=r"f.csv:3: the item id is empty.* mend the file"):
        write_tables(RawTables("time", parts, ()), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    write_tables(read_simulated(SHOP), tmp_path / "a")
    with pytest.raises(ValueError, match="it exists; remove it first"):
        write_tables(read_simulated(SHOP), tmp_path / "a")
