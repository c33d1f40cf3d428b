"""What float16 and int8 snapshots cost: `python -m benchmarks.snapshot_types`.

On one domain of amazon2014, with MiniLM's frozen vectors. A Hydra with text vectors and no ids is
trained on each type, for each seed; that which was trained on float32 is asked with the other
types' vectors too, so that nothing but the vectors' rounding differs. Printed: NDCG@10 of the test
targets both ways, and the size of the vectors. The loss that is held to a bar is relative, of the
mean over the seeds, of the one model asked with rounded vectors.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Check, finish
from benchmarks.objectives import Setting, options_of
from item_llm import ItemEncoder
from item_llm.cache import EmbeddingCache
from item_llm.snapshot import Snapshot, SnapshotType

TYPES: tuple[SnapshotType, ...] = ("float32", "float16", "int8")
_MOST_LOSS = 0.01  # of NDCG@10, relative; our choice [D]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all types; returns the exit status."""
    options = options_of(argparse.ArgumentParser(description=__doc__), arguments)
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="hydrarec-types-") as name:
        setting = Setting.prepare(options, Path(name))
        snapshots = _snapshots(setting)
        for seed in options.seeds:
            for row in _measured(setting, snapshots, seed):
                rows.append(row)
                print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    exact = _mean(rows, "float32")
    checks = [
        Check(
            f"{dtype}: relative loss of NDCG@10, read by the model of float32",
            1 - _mean(rows, dtype) / exact,
            _MOST_LOSS,
            "most",
        )
        for dtype in TYPES[1:]
    ]
    return finish("snapshot_types", checks, rows)


def _snapshots(setting: Setting) -> dict[SnapshotType, Snapshot]:
    """The domain's vectors, encoded once, as each type."""
    encoder = ItemEncoder.load(setting.run.item_llm.encoder)
    texts = setting.corpus.texts
    cache = EmbeddingCache.open(setting.folder / "cache", encoder.fingerprint, encoder.dim)
    cache.refresh(texts, encoder)
    return {dtype: cache.snapshot(texts, setting.folder / dtype, dtype=dtype) for dtype in TYPES}


def _measured(
    setting: Setting, snapshots: dict[SnapshotType, Snapshot], seed: int
) -> list[dict[str, Any]]:
    """One row for each type."""
    data = {
        dtype: setting.data(torch.from_numpy(snapshot.rows(slice(None))), seed)
        for dtype, snapshot in snapshots.items()
    }
    exact = setting.trained(data["float32"])
    rows = []
    for dtype, snapshot in snapshots.items():
        own = exact if dtype == "float32" else setting.trained(data[dtype])
        scales = 0 if snapshot.scales is None else snapshot.scales.nbytes
        rows.append(
            {
                "dtype": dtype,
                "seed": seed,
                "bytes": snapshot.vectors.nbytes + scales,
                "ndcg@10 float32's model": setting.ndcg(data[dtype], exact),
                "ndcg@10 own model": setting.ndcg(data[dtype], own),
            }
        )
    return rows


def _mean(rows: Sequence[dict[str, Any]], dtype: SnapshotType) -> float:
    return float(np.mean([row["ndcg@10 float32's model"] for row in rows if row["dtype"] == dtype]))


if __name__ == "__main__":
    raise SystemExit(main())
