"""What float16 and int8 snapshots cost: `python -m benchmarks.snapshot_types`.

On amazon2014/beauty, with MiniLM's frozen vectors and no trained model, so that nothing but the
vectors' rounding can differ: a user's last item is ranked among all items by its cosine to the mean
of the items before it. Printed: NDCG@10 of each type, its loss against float32, and its size.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import torch

from benchmarks.harness import Check, finish
from item_llm import EncoderConfig, ItemEncoder
from item_llm.cache import EmbeddingCache
from item_llm.snapshot import SnapshotType
from pipeline.domains import DomainConfig
from pipeline.paths import data_root
from pipeline.sources.registry import read_source

TYPES: tuple[SnapshotType, ...] = ("float32", "float16", "int8")
_MOST_LOSS = 0.01  # of int8, relative; our choice [D]
_K = 10


def histories(users: int) -> tuple[list[str], list[np.ndarray]]:
    """Texts of all items, and each user's items in time as positions in them."""
    source = {"format": "sequences", "path": "amazon2014/beauty"}
    config = DomainConfig.model_validate({"name": "beauty", "source": source})
    raw = read_source(config.source, data_root()).whole()
    items = raw.items.unique("item_id").sort("item_id").with_row_index("place")
    events = raw.interactions.sort("user_id", "timestamp", maintain_order=True)
    rows = events.join(items, on="item_id", maintain_order="left").group_by(
        "user_id", maintain_order=True
    )
    found = rows.agg(pl.col("place"))["place"].to_list()
    return items["text"].to_list(), [np.array(row) for row in found[:users] if len(row) > 1]


def ndcg(vectors: np.ndarray, users: list[np.ndarray]) -> float:
    """Mean NDCG@10 of each user's last item, ranked by cosine to the mean of those before it."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    total = 0.0
    for start in range(0, len(users), 512):
        block = users[start : start + 512]
        queries = np.stack([unit[row[:-1]].mean(axis=0) for row in block])
        scores = queries @ unit.T
        for row, score in zip(block, scores, strict=True):
            target = score[row[-1]]
            score[row[:-1]] = -np.inf  # seen
            rank = 1 + int((score > target).sum()) + ((score == target).sum() - 1) / 2
            total += 1 / np.log2(1 + rank) if rank <= _K else 0.0
    return total / len(users)


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=22_363, help="users that are ranked")
    parser.add_argument("--threads", type=int, default=1, help="of torch and numpy")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    texts, users = histories(options.users)
    encoder = ItemEncoder.load(EncoderConfig(base="minilm", max_tokens=64, dtype="mixed"))
    rows = []
    with tempfile.TemporaryDirectory(prefix="hydrarec-types-") as scratch:
        cache = EmbeddingCache.open(Path(scratch) / "cache", encoder.fingerprint, encoder.dim)
        cache.refresh(texts, encoder)
        for dtype in TYPES:
            snapshot = cache.snapshot(texts, Path(scratch) / dtype, dtype=dtype)
            size = snapshot.vectors.nbytes + (0 if snapshot.scales is None else 4 * len(snapshot))
            figure = ndcg(snapshot.rows(slice(None)), users)
            rows.append({"dtype": dtype, "ndcg@10": figure, "bytes": size})
            print(f"{dtype:8} NDCG@10 {figure:.6f}, {size / 2**20:.1f} MiB", flush=True)
    exact = float(rows[0]["ndcg@10"])
    loss = {row["dtype"]: 1 - float(row["ndcg@10"]) / exact for row in rows[1:]}
    checks = [
        Check(f"{dtype}: relative loss of NDCG@10", lost, _MOST_LOSS, "most")
        for dtype, lost in loss.items()
    ]
    return finish("snapshot_types", checks, rows)


if __name__ == "__main__":
    sys.exit(main())
