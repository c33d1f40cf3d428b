"""The ranks of one model in one domain, as a file: NumPy arrays, never pickled objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.metrics import Ranks


def save_ranks(folder: Path, domain: str, ranks: Ranks) -> None:
    """Write DOMAIN.npz with int64 `best` and `ties`, one entry a test user."""
    np.savez(folder / f"{domain}.npz", best=ranks.best, ties=ranks.ties)


def load_ranks(folder: Path) -> dict[str, Ranks]:
    """All ranks of a folder, by domain."""
    found = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            found[path.stem] = Ranks(best=arrays["best"], ties=arrays["ties"])
    return found
