"""RoPE: the pairs and positions by hand, against its reference, and as a rotation."""

import math

import pytest
import torch

from user_model.ops import plan, rope
from user_model.ops.rotary import rope_reference

LENGTHS = [5, 1, 0, 3, 70, 1]


def make(lengths, *shape):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(sum(lengths), *shape, generator=generator, dtype=torch.float64)


def test_pairs_are_interleaved_and_positions_begin_at_zero():
    x = torch.tensor([[1.0, 0.0, 1.0, 0.0]] * 3).double()
    turned = rope(x, torch.tensor([0, 1, 3]))
    slow = 10_000.0 ** (-2 / 4)
    second = [math.cos(1), math.sin(1), math.cos(slow), math.sin(slow)]
    expected = torch.tensor([[1, 0, 1, 0], [1, 0, 1, 0], second], dtype=torch.float64)
    assert torch.allclose(turned, expected, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("offset", [None, torch.arange(6) * 11], ids=["from 0", "offset"])
@pytest.mark.parametrize("shape", [(8,), (2, 16), (2, 3, 4)])
def test_is_its_reference(shape, offset, bounds, compare, run_with_gradients):
    cu_seqlens, inputs = bounds(LENGTHS), {"x": make(LENGTHS, *shape)}

    def run(form, values):
        return run_with_gradients(lambda x: (form(x, cu_seqlens, offset),), values, ("y",))

    expected = run(rope_reference, inputs)
    compare(run(rope, inputs), expected, 1e-12)
    compare(run(rope, {"x": inputs["x"].float()}), expected, 1e-5)


def test_offset_continues_the_sequence(bounds, compare):
    x = make([70], 2, 16)
    parts = [
        rope(x[:30], bounds([30])),
        rope(x[30:], bounds([40]), torch.tensor([30])),
    ]
    compare({"y": torch.cat(parts)}, {"y": rope(x, bounds([70]))}, 1e-12)


def test_keeps_lengths_far_out(bounds):
    """In float32 too, at position 10^5: angles are float64."""
    x = torch.tensor([[3.0, 4.0]])
    far = rope(x, bounds([1]), torch.tensor([100_000]))
    angle = 100_000.0
    expected = [
        3 * math.cos(angle) - 4 * math.sin(angle),
        3 * math.sin(angle) + 4 * math.cos(angle),
    ]
    assert far.tolist()[0] == pytest.approx(expected, rel=1e-6)


def test_odd_strides(bounds, compare):
    wide = make(LENGTHS, 2, 17)
    views = {"offset 1": wide[..., 1:], "width first": wide[..., :16].mT.contiguous().mT}
    for name, x in views.items():
        y = rope(x, bounds(LENGTHS))
        compare({name: y}, {name: rope(x.contiguous(), bounds(LENGTHS))}, 1e-15)


def test_a_table_made_in_inference_mode_serves_training(bounds):
    x = make([3], 2, 6).requires_grad_()
    with torch.inference_mode():
        rope(x, bounds([3]))
    rope(x, bounds([3])).sum().backward()
    assert x.grad is not None


def test_wrong_input(bounds):
    with pytest.raises(ValueError, match="P even"):
        rope(torch.zeros(3, 2, 5), bounds([3]))
    with pytest.raises(ValueError, match="ends at 2, expected 3"):
        rope(torch.zeros(3, 2, 4), bounds([2]))
    with pytest.raises(ValueError, match="one plan"):
        rope(torch.zeros(3, 2, 4), bounds([3]), plan=plan(bounds([2, 1])))
