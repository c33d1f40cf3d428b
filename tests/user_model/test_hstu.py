"""HSTU against its equations, written out one history, head and pair of items at a time."""

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from user_model.hstu import HSTU, HSTUConfig

LENGTHS = [1, 5, 2, 33, 3, 5, 17]


def model(**kwargs):
    fields = {"dim": 16, "heads": 2, "max_positions": 40, "dropout": 0.0}
    hstu = HSTU(HSTUConfig(**(fields | kwargs))).double()
    for name, parameter in hstu.named_parameters():
        if "bias" in name:  # of a size that is seen
            torch.nn.init.normal_(parameter)
    return hstu


def batch():
    cu_seqlens = torch.tensor([0, *LENGTHS]).cumsum(0)
    return torch.randn(int(cu_seqlens[-1]), 16, dtype=torch.float64), cu_seqlens


def one_layer(layer, h_Ld):
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
                total = total + functional.silu(score) / layer.longest * v[s, mine]
            heads.append(total)
        rows.append(torch.cat(heads))
    gated = layer.mixed_norm(torch.stack(rows)) * u
    return h_Ld + gated @ layer.output.weight.T + layer.output.bias


def one_history(hstu, vectors_Ld):
    h = hstu.input_norm(vectors_Ld)
    for layer in hstu.layers:
        h = one_layer(layer, h)
    return h


def rms_ratio(got, wanted):
    got, wanted = got.detach(), wanted.detach()
    return float((got - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())


def test_outputs_and_gradients_are_those_of_the_equations():
    hstu = model()
    vectors, cu_seqlens = batch()
    vectors.requires_grad_()
    weights = torch.randn_like(vectors)
    named = {"vectors": vectors, **dict(hstu.named_parameters())}
    found = hstu(vectors, cu_seqlens)
    expected = torch.cat([one_history(hstu, part) for part in vectors.split(LENGTHS)])
    assert rms_ratio(found, expected) < 1e-12
    got, want = (
        torch.autograd.grad((outputs * weights).sum(), list(named.values()))
        for outputs in (found, expected)
    )
    for name, mine, theirs in zip(named, got, want, strict=True):
        assert rms_ratio(mine, theirs) < 1e-12, name


def test_the_bias_tells_order_apart():
    hstu = model()
    vectors = torch.randn(3, 16, dtype=torch.float64)
    forward = hstu(vectors, torch.tensor([0, 3]))
    swapped = hstu(vectors[[1, 0, 2]], torch.tensor([0, 3]))
    assert (forward[2] - swapped[2]).abs().max().item() > 1e-6


def test_a_history_longer_than_the_distances_raises():
    with pytest.raises(ValueError, match=r"has 33 items, expected at most max_positions = 32"):
        model(max_positions=32)(*batch())


def test_heads_divide_the_width():
    with pytest.raises(ValidationError, match="heads: got 3, expected a divisor of dim 16"):
        HSTUConfig(dim=16, heads=3)
