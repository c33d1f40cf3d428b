"""The average against its definition: the sum of decay^(t-i) w_i, divided by the sum of decays."""

import pytest
import torch
from torch import nn

from user_model.averaging import WeightAverage

DECAY = 0.9


def defined(weights, decay=DECAY):
    shares = torch.tensor([decay ** (len(weights) - 1 - i) for i in range(len(weights))])
    return sum(s * w for s, w in zip(shares, weights, strict=True)) / shares.sum()


def training(steps, table=True):
    """An average of random steps; some rows are touched often, row 5 never, and what it saw."""
    dense = nn.Parameter(torch.randn(3, 2, dtype=torch.float64))
    rows = nn.Parameter(torch.randn(6, 2, dtype=torch.float64)) if table else None
    average = WeightAverage([("dense", dense)], rows, DECAY)
    seen = []
    for number in range(steps):
        touched = torch.tensor([0, 1 + number % 4])
        average.before_step(touched)
        dense.data += torch.randn_like(dense)
        if rows is not None:
            rows.data[touched] += torch.randn(2, 2, dtype=torch.float64)
        average.after_step(touched)
        seen.append((dense.detach().clone(), None if rows is None else rows.detach().clone()))
    return average, dense, rows, seen


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_it_is_the_weighted_mean_of_the_weights_after_each_step(steps):
    average, dense, rows, seen = training(steps)
    with average.in_place():
        torch.testing.assert_close(dense.data, defined([d for d, _ in seen]), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(rows.data, defined([r for _, r in seen]), rtol=1e-6, atol=1e-7)
    assert torch.equal(dense, seen[-1][0])
    assert torch.equal(rows, seen[-1][1])


def test_the_weights_come_back_when_validation_raises():
    average, dense, rows, seen = training(5)

    def validate():
        raise RuntimeError("no figure")

    with pytest.raises(RuntimeError, match="no figure"), average.in_place():
        validate()
    assert torch.equal(dense, seen[-1][0])
    assert torch.equal(rows, seen[-1][1])


def test_looking_at_it_changes_nothing():
    average, *_ = training(9)
    before = {name: tensor.clone() for name, tensor in average.state().items()}
    with average.in_place():
        pass
    assert all(torch.equal(before[name], tensor) for name, tensor in average.state().items())


def test_without_a_table_and_before_the_first_step():
    average, dense, _, seen = training(3, table=False)
    with average.in_place():
        torch.testing.assert_close(dense.data, defined([d for d, _ in seen]), rtol=1e-6, atol=1e-7)
    fresh, weights, rows, _ = training(0)
    before = weights.detach().clone(), rows.detach().clone()
    fresh.keep()
    assert torch.equal(weights, before[0])
    assert torch.equal(rows, before[1])
