"""Pieces of the training recipe: hard negatives, and settings that exclude each other."""

import pytest
import torch
from pydantic import ValidationError

from user_model import TrainingConfig
from user_model.losses import hard_infonce, sampled_loss

G, TILE, K, V, D = 3, 4, 9, 12, 6


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(4)
    query = torch.randn(G * TILE, D, generator=generator, dtype=torch.float64).requires_grad_()
    table = torch.randn(V, D, generator=generator, dtype=torch.float64).requires_grad_()
    positive = torch.randint(V, (G * TILE,), generator=generator)
    return query, table, positive, torch.randint(V, (G, K), generator=generator)


def plain(query, table, positive, negative, temperature, hardest):
    losses = []
    for slot, target in enumerate(positive.tolist()):
        others = negative[slot // TILE]
        scores = table[others[others != target]] @ query[slot] / temperature
        kept = scores[scores.argsort(descending=True)[:hardest]]
        own = table[target] @ query[slot] / temperature
        losses.append(torch.cat([own[None], kept]).logsumexp(0) - own)
    return torch.stack(losses)


@pytest.mark.parametrize("hardest", [1, 3, K])
def test_the_hardest_negatives_make_the_loss(case, hardest):
    expected = plain(*case, 0.3, hardest)
    got = hard_infonce(*case, temperature=0.3, hardest=hardest)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    cotangent = torch.linspace(0.5, 2.0, G * TILE, dtype=torch.float64)
    wanted = torch.autograd.grad(expected, case[:2], cotangent)
    for name, one, other in zip(
        ("query", "table"), torch.autograd.grad(got, case[:2], cotangent), wanted, strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12, msg=name)


def test_all_of_them_are_the_usual_loss(case):
    usual = sampled_loss(*case, TrainingConfig(temperature=0.3, negatives=K, negatives_tile=TILE))
    config = TrainingConfig(temperature=0.3, negatives=K, negatives_tile=TILE, hard_negatives=K)
    torch.testing.assert_close(sampled_loss(*case, config), usual, rtol=1e-10, atol=1e-12)


def test_negatives_that_are_all_the_positive_cost_nothing(case):
    query, table, positive, negative = case
    loss = hard_infonce(
        query, table, torch.full_like(positive, 2), torch.full_like(negative, 2),
        temperature=0.3, hardest=3,
    )  # fmt: skip
    loss.sum().backward()
    assert not loss.any()
    assert not query.grad.any()
    assert not table.grad.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"popularity_share": 0.7, "in_batch_share": 0.4}, "expected at most 1 together"),
        ({"popularity_share": 0.7, "other_domains_share": 0.4}, "expected at most 1 together"),
        ({"log_q": True, "other_domains_share": 0.4}, "leave one of the two out"),
        ({"hard_negatives": 600}, "got 600, expected at most the 512 of negatives"),
        ({"hard_negatives": 8, "log_q": True}, "got 8 with log_q: true"),
        ({"hard_negatives": 1, "loss": "bce"}, "got 1 with loss: bce"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        TrainingConfig(**settings)
