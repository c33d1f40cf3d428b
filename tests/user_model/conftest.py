from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rows:
    offsets: NDArray[np.int64]
    items: NDArray[np.int64]


def rows_of(*rows):
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
    return Rows(offsets, np.concatenate([np.asarray(r, dtype=np.int64) for r in rows]))


def walks(n_rows, domain_starts, rng, longest=12):
    """Rows that step through one domain's items in a circle: the next item is known."""
    rows = []
    for number in range(n_rows):
        domain = number % (len(domain_starts) - 1)
        low, high = domain_starts[domain], domain_starts[domain + 1]
        steps = np.arange(rng.integers(2, longest + 1))
        rows.append(low + (rng.integers(high - low) + steps) % (high - low))
    return rows_of(*rows)


@pytest.fixture
def domain_starts():
    return np.array([0, 30, 50], dtype=np.int64)


@pytest.fixture
def circles(domain_starts):
    return walks(120, domain_starts, np.random.default_rng(0))


@pytest.fixture(autouse=True)
def _seeded():
    # Tiny tensors: a second thread costs more than it gives.
    torch.set_num_threads(1)
    torch.manual_seed(0)
