"""Running sums: their reference and gradients, whatever the neighbours in the batch are."""

from functools import partial

import pytest
import torch

from user_model.ops import plan, running_sum
from user_model.ops.running_sum import running_sum_reference

BACKENDS = pytest.mark.parametrize("backend", ["torch", "cpu"])
LENGTHS = [5, 1, 0, 3, 70, 1, 64, 2]


def make(*shape, lengths=LENGTHS):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(sum(lengths), *shape, generator=generator, dtype=torch.float64)


@BACKENDS
def test_by_hand(backend, bounds):
    x = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    assert running_sum(x, bounds([3, 0, 2]), backend=backend).tolist() == [1, 3, 7, 8, 24]


@BACKENDS
@pytest.mark.parametrize("shape", [(), (8,), (2, 3)])
def test_is_its_reference(shape, backend, bounds, compare, run_with_gradients):
    cu_seqlens, inputs = bounds(LENGTHS), {"x": make(*shape)}

    def run(form, values):
        return run_with_gradients(lambda x: (form(x, cu_seqlens),), values, ("y",))

    form = partial(running_sum, backend=backend)
    expected = run(running_sum_reference, inputs)
    compare(run(form, inputs), expected, 1e-13)
    compare(run(form, {"x": inputs["x"].float()}), expected, 1e-6)


@BACKENDS
def test_memory_may_be_in_any_order(backend, bounds, compare):
    x, cu_seqlens = make(6, 4), bounds(LENGTHS)
    expected = running_sum_reference(x[:, ::2].transpose(1, 2), cu_seqlens)
    got = running_sum(x[:, ::2].transpose(1, 2), cu_seqlens, backend=backend)
    compare({"y": got}, {"y": expected}, 1e-13)


@BACKENDS
def test_a_batch_without_tokens_has_no_sums(backend, bounds):
    for lengths in ([], [0, 0]):
        empty = make(4, lengths=lengths)
        assert running_sum(empty, bounds(lengths), backend=backend).shape == (0, 4)


@BACKENDS
def test_half_precision_is_summed_in_float32(backend, bounds):
    ones = torch.ones(1000, 1, dtype=torch.bfloat16, requires_grad=True)
    sums = running_sum(ones, bounds([1000]), backend=backend)
    assert sums.dtype == torch.float32
    assert sums[:, 0].tolist() == list(range(1, 1001))
    sums.sum().backward()
    assert ones.grad.dtype == torch.bfloat16


@BACKENDS
def test_what_is_not_a_number_or_huge_stays_in_its_sequence(backend, bounds):
    x = make(4)
    expected = running_sum(x, bounds(LENGTHS), backend=backend)
    x[5] = float("nan")
    x[6:9] = 1e300
    got = running_sum(x, bounds(LENGTHS), backend=backend)
    assert got[5].isnan().all()
    assert torch.equal(got[:5], expected[:5])
    assert torch.equal(got[9:], expected[9:])


@BACKENDS
def test_errors_are_small_in_long_sequences(backend, bounds):
    x = make(4, lengths=[16_384])
    got = running_sum(x.float(), bounds([16_384]), backend=backend)
    assert (got - x.cumsum(0)).abs().max() < 1e-3


@pytest.mark.parametrize("compiled", [False, True])
def test_is_a_sound_custom_op(compiled, bounds):
    positions = plan(bounds(LENGTHS)).positions
    for back in (False, True):
        arguments = (make(3).requires_grad_(), positions, back, compiled)
        torch.library.opcheck(torch.ops.hydrarec.running_sum, arguments)


def test_what_does_not_fit_raises(bounds):
    with pytest.raises(ValueError, match=r"running_sum: x: got torch.int64 \[2\]"):
        running_sum(torch.arange(2), bounds([2]))
    with pytest.raises(ValueError, match="cu_seqlens"):
        running_sum(make(3), bounds([4]))
    with pytest.raises(ValueError, match="got backend 'gpu', expected one of 'auto', 'torch'"):
        running_sum(make(3), bounds(LENGTHS), backend="gpu")
