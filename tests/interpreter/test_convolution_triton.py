"""The Triton convolution in the interpreter: it is the reference, in every output and gradient.

New memory holds NaN, so that what a kernel forgets to write shows; x is a view between rows and
columns of NaN, so that what it reads out of place shows.
"""

import pytest
import torch

from user_model.ops import BackendUnavailableError, plan
from user_model.ops.convolution import conv_reference
from user_model.ops.convolution_triton import conv_triton

K = 6
# 45 tokens: a tile of 32 ends inside a sequence; sequences shorter than the taps on both sides.
RAGGED = [1, 2, 3, 0, 4, 33, 1, 0, 1]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3}
NAMES = ("y", "tails")

pytestmark = pytest.mark.usefixtures("memory_holds_nan")


def make(lengths, dtype=torch.float64, W=4, tails=True, bias=True):
    generator = torch.Generator().manual_seed(3)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    inputs = {"x": random(sum(lengths), K), "weight": random(K, W)}
    if bias:
        inputs["bias"] = random(K)
    if tails:
        inputs["initial_state"] = random(len(lengths), K, W - 1)
    return inputs


def guarded(x):
    """Return x as a view of rows that others surround."""
    T, width = x.shape
    around = torch.full((T + 8, width + 5), torch.nan, dtype=x.dtype)
    return around.index_put((torch.arange(4, T + 4)[:, None], torch.arange(2, width + 2)), x)[
        4 : T + 4, 2 : width + 2
    ]


def triton_form(cu_seqlens, silu=True):
    def op(x, weight, bias=None, initial_state=None):
        return conv_triton(guarded(x), weight, bias, plan(cu_seqlens), initial_state, silu=silu)

    return op


def reference_form(cu_seqlens, silu=True):
    def op(x, weight, bias=None, initial_state=None):
        y, tails = conv_reference(x, weight, bias, cu_seqlens, initial_state, silu=silu)
        # Without tokens the loop never touches weight and bias: their gradient is zero.
        unused = [tensor for tensor in (x, weight, bias) if tensor is not None]
        return y + sum(0 * tensor.sum() for tensor in unused), tails

    return op


@pytest.mark.parametrize(
    ("lengths", "options", "silu", "dtypes"),
    [
        (RAGGED, {}, True, TOLERANCES),
        (RAGGED, {}, False, [torch.float32]),
        (RAGGED, {"tails": False}, True, [torch.float64]),
        (RAGGED, {"bias": False, "W": 2}, True, [torch.float64]),
        (RAGGED, {"tails": False, "W": 3}, True, [torch.float32]),
        ([1] * 5, {}, True, [torch.float64]),
        ([0, 0], {}, True, [torch.float64]),
    ],
    ids=["all types", "no silu", "no tails", "2 taps, no bias", "3 taps", "ones", "no tokens"],
)
def test_is_the_reference(lengths, options, silu, dtypes, bounds, compare, run_with_gradients):
    cu_seqlens = bounds(lengths)
    for dtype in dtypes:
        inputs = make(lengths, dtype, **options)
        got = run_with_gradients(triton_form(cu_seqlens, silu), inputs, NAMES)
        exact = {name: value.double() for name, value in inputs.items()}
        form = rounded_cotangents(reference_form(cu_seqlens, silu), dtype)
        compare(got, run_with_gradients(form, exact, NAMES), TOLERANCES[dtype])


def rounded_cotangents(op, dtype):
    """Let the reference, in float64, meet the cotangents that `dtype` can hold."""

    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            return y.clone()

        @staticmethod
        def backward(ctx, dy):
            return dy.to(dtype).double()

    return lambda **leaves: tuple(Round.apply(y) for y in op(**leaves))


def test_a_sequence_is_the_same_packed_or_alone_and_twice(bounds, run_with_gradients):
    """Bitwise, also where a neighbour is NaN; weight and bias gather from all, so they are not."""
    lengths, inputs = [2, 5, 31], make([2, 5, 31], torch.float32)
    own = {"x": inputs["x"][2:7], "initial_state": inputs["initial_state"][1:2]}
    alone = triton_form(bounds([5]))(**inputs | own)
    packed = run_with_gradients(triton_form(bounds(lengths)), inputs, NAMES)
    poisoned = {name: value.clone() for name, value in inputs.items()}
    poisoned["x"][:2], poisoned["x"][7:] = torch.nan, torch.nan
    poisoned["initial_state"][::2] = torch.nan
    beside_nan = run_with_gradients(triton_form(bounds(lengths)), poisoned, NAMES)
    assert torch.equal(packed["y"][2:7], alone[0])
    assert torch.equal(packed["tails"][1:2], alone[1])
    for name, rows in (
        ("y", slice(2, 7)), ("dx", slice(2, 7)), ("tails", 1), ("dinitial_state", 1)
    ):  # fmt: skip
        assert torch.equal(beside_nan[name][rows], packed[name][rows]), name
        assert bool(beside_nan[name].isnan().any()), name
    again = run_with_gradients(triton_form(bounds(lengths)), inputs, NAMES)
    assert all(torch.equal(again[name], value) for name, value in packed.items())


def test_writes_stay_in_their_rows(bounds, run_with_gradients, guarded_memory):
    inputs = make([2, 0, 33], torch.float32)
    got = run_with_gradients(triton_form(bounds([2, 0, 33])), inputs, NAMES)
    assert any(memory.numel() >= got["y"].numel() for memory in guarded_memory)


def test_gradcheck(bounds):
    inputs = make([2, 0, 3])
    leaves = [value.requires_grad_() for value in inputs.values()]
    assert torch.autograd.gradcheck(triton_form(bounds([2, 0, 3])), leaves, fast_mode=True)


def test_is_an_op_of_torch_library(bounds):
    batch, inputs = plan(bounds([2, 3])), make([2, 3], torch.float32)
    tensors = [value.requires_grad_() for value in inputs.values()]
    lists = (batch.cu_seqlens, batch.positions, batch.segments)
    torch.library.opcheck(torch.ops.hydrarec.conv_triton, (*tensors, *lists, True, True))


def test_tails_only_where_asked_for(bounds):
    batch, inputs = plan(bounds([2, 3])), make([2, 3], torch.float32, tails=False)
    leaves = [value.requires_grad_() for value in inputs.values()]
    y, tails = conv_triton(*leaves, batch, None, silu=True, return_final_state=False)
    with_tails, _ = conv_triton(*leaves, batch, None, silu=True)
    assert tails.shape == (0, K, 3)
    assert torch.equal(y, with_tails)
    for got, want in zip(
        torch.autograd.grad(y.sum(), leaves), torch.autograd.grad(with_tails.sum(), leaves),
        strict=True,
    ):  # fmt: skip
        assert torch.equal(got, want)


@pytest.mark.parametrize(
    ("dtype", "W", "message"),
    [(torch.float32, 5, "weight has 5 taps"), (torch.bfloat16, 4, "wrongly in bfloat16")],
)
def test_what_it_cannot_do_it_refuses(dtype, W, message, bounds):
    with pytest.raises(BackendUnavailableError, match=message):
        triton_form(bounds([3]))(**make([3], dtype, W=W))
