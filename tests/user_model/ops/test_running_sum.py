"""Running sums: their reference and gradients, whatever the neighbours in the batch are."""

import pytest
import torch

from user_model.ops import plan, running_sum
from user_model.ops.running_sum import running_sum_reference

LENGTHS = [5, 1, 0, 3, 70, 1, 64, 2]


def make(*shape, lengths=LENGTHS):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(sum(lengths), *shape, generator=generator, dtype=torch.float64)


def test_by_hand(bounds):
    x = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    assert running_sum(x, bounds([3, 0, 2])).tolist() == [1, 3, 7, 8, 24]


@pytest.mark.parametrize("shape", [(), (8,), (2, 3)])
def test_is_its_reference(shape, bounds, compare, run_with_gradients):
    cu_seqlens, inputs = bounds(LENGTHS), {"x": make(*shape)}

    def run(form, values):
        return run_with_gradients(lambda x: (form(x, cu_seqlens),), values, ("y",))

    expected = run(running_sum_reference, inputs)
    compare(run(running_sum, inputs), expected, 1e-13)
    compare(run(running_sum, {"x": inputs["x"].float()}), expected, 1e-6)


def test_a_batch_without_tokens_has_no_sums(bounds):
    for lengths in ([], [0, 0]):
        assert running_sum(make(4, lengths=lengths), bounds(lengths)).shape == (0, 4)


def test_half_precision_is_summed_in_float32(bounds):
    ones = torch.ones(1000, 1, dtype=torch.bfloat16, requires_grad=True)
    sums = running_sum(ones, bounds([1000]))
    assert sums.dtype == torch.float32
    assert sums[:, 0].tolist() == list(range(1, 1001))
    sums.sum().backward()
    assert ones.grad.dtype == torch.bfloat16


def test_what_is_not_a_number_or_huge_stays_in_its_sequence(bounds):
    x = make(4)
    expected = running_sum(x, bounds(LENGTHS))
    x[5] = float("nan")
    x[6:9] = 1e300
    got = running_sum(x, bounds(LENGTHS))
    assert got[5].isnan().all()
    assert torch.equal(got[:5], expected[:5])
    assert torch.equal(got[9:], expected[9:])


def test_errors_are_small_in_long_sequences(bounds):
    x = make(4, lengths=[16_384])
    got = running_sum(x.float(), bounds([16_384]))
    assert (got - x.cumsum(0)).abs().max() < 1e-4


def test_is_a_sound_custom_op(bounds):
    positions = plan(bounds(LENGTHS)).positions
    for back in (False, True):
        arguments = (make(3).requires_grad_(), positions, back)
        torch.library.opcheck(torch.ops.hydrarec.running_sum, arguments)


def test_what_does_not_fit_raises(bounds):
    with pytest.raises(ValueError, match=r"running_sum: x: got torch.int64 \[2\]"):
        running_sum(torch.arange(2), bounds([2]))
    with pytest.raises(ValueError, match="cu_seqlens"):
        running_sum(make(3), bounds([4]))
