"""HSTU against its equations, written out one history, head and pair of items at a time."""

import doctest
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from user_model import ItemTable, Recommender, TrainingConfig, hstu, train
from user_model.hstu import HSTU, HSTUConfig

LENGTHS = [1, 5, 2, 33, 3, 5, 17]


def model(time_bias=False, **kwargs):
    fields = {"dim": 16, "heads": 2, "max_positions": 40, "dropout": 0.0}
    made = HSTU(HSTUConfig(**(fields | kwargs)), time_bias=time_bias).double()
    for name, parameter in made.named_parameters():
        if "bias" in name:  # of a size that is seen
            torch.nn.init.normal_(parameter)
    return made


def batch():
    cu_seqlens = torch.tensor([0, *LENGTHS]).cumsum(0)
    return torch.randn(int(cu_seqlens[-1]), 16, dtype=torch.float64), cu_seqlens


def times_of_batch():
    """Unix seconds: gaps of none, of seconds and of years; users do not follow one another."""
    gaps = [
        torch.tensor([0, 1, 7, 3600, 86_400, 40_000_000])[torch.randint(6, (n,))] for n in LENGTHS
    ]
    return torch.cat([1_700_000_000 - 50_000 * n + gap.cumsum(0) for n, gap in enumerate(gaps)])


def one_layer(layer, h_Ld, times_L):
    dim, width = h_Ld.shape[1], h_Ld.shape[1] // layer.heads
    streams = functional.silu(layer.norm(h_Ld) @ layer.input.weight.T)
    u, v, q, k = streams.split(dim, -1)
    rows = []
    for t in range(len(h_Ld)):
        heads = []
        for head in range(layer.heads):
            mine = slice(head * width, (head + 1) * width)
            total = torch.zeros(width, dtype=h_Ld.dtype)
            for s in range(t + 1):
                score = q[t, mine] @ k[s, mine] + layer.position_bias[t - s]
                if times_L is not None:
                    gap = max(1, int(times_L[t]) - int(times_L[s]))
                    score = score + layer.time_bias[math.floor(math.log(gap) / 0.301)]
                total = total + functional.silu(score) / layer.longest * v[s, mine]
            heads.append(total)
        rows.append(torch.cat(heads))
    gated = layer.mixed_norm(torch.stack(rows)) * u
    return h_Ld + gated @ layer.output.weight.T + layer.output.bias


def one_history(made, vectors_Ld, times_L=None):
    h = made.input_norm(vectors_Ld)
    for layer in made.layers:
        h = one_layer(layer, h, times_L)
    return h


def rms_ratio(got, wanted):
    got, wanted = got.detach(), wanted.detach()
    return float((got - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())


@pytest.mark.parametrize("timed", [False, True])
def test_outputs_and_gradients_are_those_of_the_equations(timed):
    made = model(time_bias=timed)
    vectors, cu_seqlens = batch()
    times = times_of_batch() if timed else None
    parts = [None] * len(LENGTHS) if times is None else times.split(LENGTHS)
    vectors.requires_grad_()
    weights = torch.randn_like(vectors)
    named = {"vectors": vectors, **dict(made.named_parameters())}
    found = made(vectors, cu_seqlens, times)
    rows = zip(vectors.split(LENGTHS), parts, strict=True)
    expected = torch.cat([one_history(made, row, when) for row, when in rows])
    assert rms_ratio(found, expected) < 1e-12
    got, want = (
        torch.autograd.grad((outputs * weights).sum(), list(named.values()))
        for outputs in (found, expected)
    )
    for name, mine, theirs in zip(named, got, want, strict=True):
        assert rms_ratio(mine, theirs) < 1e-12, name


def test_the_bias_tells_order_apart():
    made = model()
    vectors = torch.randn(3, 16, dtype=torch.float64)
    forward = made(vectors, torch.tensor([0, 3]))
    swapped = made(vectors[[1, 0, 2]], torch.tensor([0, 3]))
    assert (forward[2] - swapped[2]).abs().max().item() > 1e-6


def test_worked_examples_hold():
    result = doctest.testmod(hstu)
    assert result.attempted > 0
    assert result.failed == 0


def by_time(rng, rows=400):
    """Histories (first, second) whose next item is 2 after a second, and 3 after a year."""
    late = rng.integers(2, size=rows)
    items = np.stack([rng.integers(2, size=rows), rng.integers(2, size=rows), 2 + late], 1)
    gaps = np.stack([np.zeros_like(late), np.where(late, 31_536_000, 1), np.ones_like(late)], 1)
    return items.ravel(), (1_600_000_000 + gaps.cumsum(1)).ravel(), late


@pytest.mark.parametrize("timed", [False, True])
def test_only_with_times_it_learns_what_time_tells(timed):
    items, times, late = by_time(np.random.default_rng(0))
    rows = type("Rows", (), {"offsets": np.arange(0, len(items) + 1, 3), "items": items})
    made = HSTU(HSTUConfig(dim=16, layers=1, max_positions=4, dropout=0.0), time_bias=timed)
    recommender = Recommender(ItemTable(4, 16), made)
    config = TrainingConfig(
        epochs=25, batch_tokens=128, negatives=16, negatives_tile=32, lr=0.01, warmup_steps=5
    )
    given = times if timed else None
    train(recommender, rows, np.array([0, 4]), config, seed=0, times=given)
    asked = items.reshape(-1, 3)[:, :2].ravel()
    users = recommender.encode_histories(
        np.arange(0, len(asked) + 1, 2), asked, block_tokens=100,
        times=times.reshape(-1, 3)[:, :2].ravel() if timed else None,
    )  # fmt: skip
    with torch.no_grad():
        scores = users @ recommender.item_vectors(torch.tensor([2, 3])).T
    right = (scores.argmax(1).numpy() == late).mean()
    assert right == 1.0 if timed else right < 0.7


def test_a_time_bias_without_times_raises():
    vectors, cu_seqlens = batch()
    with pytest.raises(ValueError, match=r"times: got none, expected \[66\]"):
        model(time_bias=True)(vectors, cu_seqlens)
    with pytest.raises(ValueError, match=r"times: got \[3\], expected \[66\]"):
        model(time_bias=True)(vectors, cu_seqlens, torch.arange(3))


def test_a_history_longer_than_the_distances_raises():
    with pytest.raises(ValueError, match=r"has 33 items, expected at most max_positions = 32"):
        model(max_positions=32)(*batch())


def test_heads_divide_the_width():
    with pytest.raises(ValidationError, match="heads: got 3, expected a divisor of dim 16"):
        HSTUConfig(dim=16, heads=3)
