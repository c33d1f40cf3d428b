"""Item vectors from co-occurrence: the definition item by item, and what they say."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from user_model.cooccurrence import SMOOTHING, WINDOW, cooccurrence_vectors


def histories(rows):
    lengths = [len(row) for row in rows]
    return SimpleNamespace(
        offsets=np.array([0, *np.cumsum(lengths)]), items=np.array([i for row in rows for i in row])
    )


def one_domain(n_items):
    return np.array([0, n_items])


def information(rows, n_items):
    """Positive pointwise mutual information from its definition, pair by pair."""
    near = [[0.0] * n_items for _ in range(n_items)]
    for row in rows:
        for a in range(len(row)):
            for b in range(len(row)):
                if 1 <= abs(a - b) <= WINDOW:
                    near[row[a]][row[b]] += 1.0 / abs(a - b)
    totals = [sum(line) for line in near]
    every = sum(total**SMOOTHING for total in totals)
    found = np.zeros((n_items, n_items))
    for a in range(n_items):
        for b in range(n_items):
            if near[a][b]:
                found[a, b] = max(
                    0.0, math.log(near[a][b] * every / (totals[a] * totals[b] ** SMOOTHING))
                )
    return (found + found.T) / 2


def random_rows(n_items, n_rows, seed=0):
    """People who stay in one of ten groups of items, most of the time."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(10, size=n_rows)
    return [
        [
            int(
                rng.integers(n_items)
                if rng.random() < 0.2
                else rng.integers(n_items // 10) * 10 + g
            )
            for _ in range(rng.integers(1, 12))
        ]
        for g in groups
    ]


@pytest.mark.parametrize("n_items", [30, 200])  # all eigenvectors at once, and the leading alone
def test_their_products_are_the_leading_part_of_the_information(n_items):
    rows, most = random_rows(n_items, 400), 12
    vectors, told = cooccurrence_vectors(histories(rows), one_domain(n_items), most)
    values, directions = np.linalg.eigh(information(rows, n_items))
    expected = (directions[:, -most:] * values[-most:]) @ directions[:, -most:].T
    got = vectors.double().numpy() @ vectors.double().numpy().T
    scale = np.trace(expected) / np.trace(got)
    assert np.abs(got * scale - expected).max() < 1e-5 * np.abs(expected).max()
    assert vectors.dtype == torch.float32
    assert float(vectors.square().mean()) == pytest.approx(1.0, rel=1e-5)
    assert told.all()


def test_items_of_one_group_are_near_each_other():
    vectors, _ = cooccurrence_vectors(histories(random_rows(200, 2000)), one_domain(200), 16)
    units = torch.nn.functional.normalize(vectors, dim=1)
    cosines, group = units @ units.T, torch.arange(200) % 10
    same = group[:, None] == group
    others = ~torch.eye(200, dtype=torch.bool)
    assert cosines[same & others].mean() > cosines[~same].mean() + 0.5


def test_rows_do_not_touch_and_items_without_company_are_told_nothing_of():
    rows = [[0, 1], [0, 1, 1], [2], [3, 4], [4, 3]]
    vectors, told = cooccurrence_vectors(histories(rows), one_domain(6), 4)
    assert told.tolist() == [True, True, False, True, True, False]
    assert float((vectors[0] @ vectors[3]).abs()) < 1e-6


def test_the_same_histories_give_the_same_vectors():
    rows = histories(random_rows(200, 400))
    (one, _), (other, _) = (cooccurrence_vectors(rows, one_domain(200), 12) for _ in range(2))
    assert torch.equal(one, other)


def test_histories_without_pairs_give_no_columns():
    vectors, told = cooccurrence_vectors(histories([[0], [2], []]), one_domain(3), 2)
    assert vectors.shape == (3, 0)
    assert not told.any()


def test_each_domain_has_the_columns_that_it_has_alone():
    small, large = random_rows(30, 400, seed=1), random_rows(200, 2000, seed=2)
    moved = [[item + 30 for item in row] for row in large]
    both, told = cooccurrence_vectors(histories([*small, *moved]), np.array([0, 30, 230]), 16)
    alone, _ = cooccurrence_vectors(histories(small), one_domain(30), 16)
    others, _ = cooccurrence_vectors(histories(large), one_domain(200), 16)
    assert told.all()
    assert others.shape == (200, 16)
    assert torch.equal(both[30:], others)
    assert torch.equal(both[:30, : alone.shape[1]], alone)
    assert not both[:30, alone.shape[1] :].any()


def test_a_domain_without_pairs_has_zeros_beside_one_with_them():
    vectors, told = cooccurrence_vectors(
        histories([[0, 1], [1, 0], [2], [3]]), np.array([0, 2, 4]), 4
    )
    assert told.tolist() == [True, True, False, False]
    assert not vectors[2:].any()
