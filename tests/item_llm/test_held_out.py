import math

import numpy as np
import pytest
import torch

from item_llm import ItemPairs
from item_llm.held_out import held_out_metrics, mean_cosine, realistic_ranks


def test_metrics_by_hand():
    # Unit vectors in the plane at these angles; candidates of domain 0: texts 1, 2; of 1: text 3.
    angles = np.radians([0, 10, 40, 90])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    pairs = ItemPairs(np.array([0, 0, 1]), np.array([1, 2, 3]), np.array([0, 0, 1]))
    metrics = held_out_metrics(vectors, pairs, temperature=0.1)
    apart = vectors[:3] - vectors[:3].mean(0)  # domain 0 names the texts 0, 1 and 2
    apart /= np.linalg.norm(apart, axis=1, keepdims=True)
    near, far = (math.exp(apart[0] @ apart[i] / 0.1) for i in (1, 2))
    losses = [-math.log(near / (near + far)), -math.log(far / (near + far)), 0.0]
    assert metrics.loss == pytest.approx(sum(losses) / 3, rel=1e-4)
    assert metrics.mrr == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert metrics.hit_at_10 == 1.0
    assert metrics.to_json().keys() == {"loss", "hit@10", "mrr"}


def test_the_source_itself_is_no_candidate():
    vectors = np.eye(3, dtype=np.float32)
    pairs = ItemPairs(np.array([0, 1]), np.array([1, 0]), np.array([0, 0]))
    assert held_out_metrics(vectors, pairs, 0.05).mrr == 1.0


def test_ties_share_their_mean_rank():
    scores = torch.tensor([[1.0, 1.0, 1.0, 0.0], [2.0, 1.0, 0.0, 0.0]])
    assert realistic_ranks(scores, torch.tensor([0, 3])).tolist() == [2.0, 3.5]


def test_no_pairs_give_no_metrics():
    empty = np.array([], dtype=np.int64)
    assert held_out_metrics(np.eye(2, dtype=np.float32), ItemPairs(empty, empty, empty), 1) is None


def test_mean_cosine():
    before = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    after = np.array([[0.0, 1.0], [0.0, 1.0]], dtype=np.float32)
    assert mean_cosine(before, after) == 0.5
