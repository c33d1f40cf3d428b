"""The ranks of one model in one domain, as a file: NumPy arrays, never pickled objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.metrics import Int64s, Ranks


def save_ranks(folder: Path, domain: str, ranks: Ranks) -> None:
    """Write DOMAIN.npz with `best` and `ties`, one entry a test user, compressed."""
    best, ties = _smallest(ranks.best), _smallest(ranks.ties)
    np.savez_compressed(folder / f"{domain}.npz", best=best, ties=ties)


def load_ranks(folder: Path) -> dict[str, Ranks]:
    """All ranks of a folder, by domain."""
    found = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            best, ties = (arrays[name].astype(np.int64) for name in ("best", "ties"))
            found[path.stem] = Ranks(best=best, ties=ties)
    return found


def _smallest(values: Int64s) -> np.ndarray:
    """The same numbers, none negative, in the narrowest type that holds them."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))
