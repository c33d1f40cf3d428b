"""Every metric of whole rankings against ranx, another library, user by user."""

import numpy as np
import pytest
import torch

from pipeline.evaluation import rank_targets
from pipeline.histories import EvaluationCases
from pipeline.metrics import per_user

CASES, ITEMS, FIRST = 1000, 300, 40
NAMES = {"hr": "hit_rate", "ndcg": "ndcg", "mrr": "mrr"}


def drawn():
    """Cases with seen items of many counts, and scores in which no two of a row are equal."""
    rng = np.random.default_rng(0)
    targets = rng.integers(ITEMS, size=CASES)
    seen = [
        np.sort(np.setdiff1d(rng.choice(ITEMS, rng.integers(1, 120), replace=False), [target]))
        for target in targets
    ]
    order = rng.permuted(np.tile(np.arange(ITEMS), (CASES, 1)), axis=1)
    # Targets of every other case rise to the front, or few would lie inside the cut-offs.
    scores = order.astype(np.float32)
    scores[np.arange(CASES), targets] += rng.integers(2, size=CASES) * 250 + 0.5
    offsets = np.concatenate([[0], np.cumsum([len(items) for items in seen])])
    positions = np.concatenate(seen) + FIRST
    cases = EvaluationCases(
        "made-up", np.arange(CASES), offsets, positions, offsets, positions, targets + FIRST
    )
    assert all(len(set(row)) == ITEMS for row in scores)
    return cases, scores, seen


@pytest.mark.parametrize("mask_seen", [True, False])
def test_metrics_are_ranx_s_without_ties(mask_seen):
    ranx = pytest.importorskip("ranx", reason="needs the extra `test`: make install")
    cases, scores, seen = drawn()
    ranks = rank_targets(
        cases, FIRST, ITEMS, lambda _, rows: torch.from_numpy(scores[rows]), model="made-up",
        mask_seen=mask_seen,
    )  # fmt: skip
    ours = per_user(ranks, [1, 10, 50, 200])
    users = [f"{number:04}" for number in range(CASES)]
    run = {
        user: {
            str(item): float(row[item])
            for item in np.setdiff1d(np.arange(ITEMS), hidden if mask_seen else [])
        }
        for user, row, hidden in zip(users, scores, seen, strict=True)
    }
    wanted = {user: {str(item - FIRST): 1} for user, item in zip(users, cases.targets, strict=True)}
    theirs = ranx.evaluate(
        ranx.Qrels(wanted),
        ranx.Run(run),
        [_their_name(name) for name in ours],
        return_mean=False,
    )
    for name, values in ours.items():
        assert 0 < values.mean() < 1
        assert np.abs(theirs[_their_name(name)] - values).max() < 1e-9, name


def _their_name(name):
    metric, _, cut_off = name.partition("@")
    return f"{NAMES[metric]}@{cut_off}" if cut_off else NAMES[metric]
