"""The Triton InfoNCE in the interpreter: it is the reference, in the loss and both gradients.

New memory holds NaN, so that what a kernel forgets to write shows; query and table are views
between rows of NaN, so that what it reads out of place shows.
"""

import pytest
import torch

from user_model.ops import BackendUnavailableError
from user_model.ops.infonce import infonce_reference
from user_model.ops.infonce_triton import infonce_triton

V = 40
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3}
NAMES = ("loss",)

pytestmark = pytest.mark.usefixtures("memory_holds_nan")


def make(T, tile, d, K, corrected, dtype):
    generator = torch.Generator().manual_seed(9)
    tiles = -(-T // tile)
    popularity = torch.rand(V, generator=generator)
    fixed = (
        torch.randint(V, (T,), generator=generator),
        torch.randint(V, (tiles, K), generator=generator),
        (popularity / popularity.sum()).log() if corrected else None,
        0.5,
        tile,
    )
    leaves = {
        name: torch.randn(rows, d, generator=generator, dtype=torch.float64).to(dtype)
        for name, rows in (("query", T), ("table", V))
    }
    return leaves, fixed


def guarded(rows):
    """Return rows as a view that others surround."""
    n, d = rows.shape
    around = torch.full((n + 4, d + 3), torch.nan, dtype=rows.dtype)
    inner = (torch.arange(2, n + 2)[:, None], torch.arange(1, d + 1))
    return around.index_put(inner, rows)[2 : n + 2, 1 : d + 1]


def triton_form(fixed):
    return lambda query, table: (infonce_triton(guarded(query), guarded(table), *fixed),)


def reference_form(fixed):
    """The reference; a gradient of zero where there is no position."""
    positive, negative, log_q, temperature, tile = fixed
    exact = None if log_q is None else log_q.double()

    def op(query, table):
        loss = infonce_reference(query, table, positive, negative, exact, temperature, tile)
        return (loss + 0 * query.sum() + 0 * table.sum(),)

    return op


@pytest.mark.parametrize(
    ("T", "tile", "d", "K", "corrected", "dtypes"),
    [
        (70, 40, 20, 40, True, TOLERANCES),
        (5, 128, 64, 3, True, [torch.float32]),
        (3, 1, 8, 16, False, [torch.float64]),
        (33, 33, 130, 17, False, [torch.float16]),
        (3, 2, 8, 0, True, [torch.float64]),
        (0, 4, 8, 4, True, [torch.float64]),
    ],
    ids=["all types", "short tile", "tiles of 1", "wide", "no negatives", "no positions"],
)
def test_is_the_reference(T, tile, d, K, corrected, dtypes, compare, run_with_gradients):
    for dtype in dtypes:
        leaves, fixed = make(T, tile, d, K, corrected, dtype)
        got = run_with_gradients(triton_form(fixed), leaves, NAMES)
        assert got["loss"].dtype == torch.promote_types(dtype, torch.float32)
        exact = {name: value.double() for name, value in leaves.items()}
        want = run_with_gradients(reference_form(fixed), exact, NAMES)
        compare(got, want, TOLERANCES[dtype])


def test_collisions_alone_leave_no_loss():
    query, table = torch.randn(2, 8), torch.randn(V, 8)
    leaves = [query.requires_grad_(), table.requires_grad_()]
    positive, negative = torch.tensor([3, 3]), torch.tensor([[3, 3, 3]])
    loss = infonce_triton(*leaves, positive, negative, None, 0.5, 2)
    gradients = torch.autograd.grad(loss.sum(), leaves)
    assert loss.tolist() == [0.0, 0.0]
    assert not any(gradient.any() for gradient in gradients)


def test_a_confident_position_keeps_its_digits(compare, run_with_gradients):
    """Loss and gradients of 1e-9: p - 1 and log(1 + p) would round them to zero in float32."""
    leaves = {"query": torch.tensor([[10.0]]), "table": torch.tensor([[1.0], [-1.0], [-1.1]])}
    fixed = (torch.tensor([0]), torch.tensor([[1, 2]]), None, 1.0, 1)
    want = run_with_gradients(
        reference_form(fixed), {name: value.double() for name, value in leaves.items()}, NAMES
    )
    assert 0 < float(want["loss"]) < 1e-8
    compare(run_with_gradients(triton_form(fixed), leaves, NAMES), want, 1e-5)


def test_float16_keeps_the_gradient_of_a_mean_over_many(compare):
    """A cotangent of 1e-6 is below what float16 holds: it is kept out of the dots' operands."""
    leaves, fixed = make(20, 20, 16, 16, False, torch.float16)

    def table_gradient(form, values):
        values = [value.clone().requires_grad_() for value in values]
        (loss,) = form(fixed)(*values)
        return torch.autograd.grad(loss.sum() * 1e-6, values[1])[0].double() * 1e6

    got = table_gradient(triton_form, [value.float().half() for value in leaves.values()])
    want = table_gradient(reference_form, [value.double() for value in leaves.values()])
    # What is left is the rounding of the result itself: float16 has steps of 6e-8.
    assert float((got - want).abs().max()) <= 0.04


def test_gradcheck_and_the_same_bits_twice(run_with_gradients):
    leaves, fixed = make(6, 4, 8, 5, True, torch.float64)
    once, again = (run_with_gradients(triton_form(fixed), leaves, NAMES) for _ in range(2))
    assert all(torch.equal(again[name], value) for name, value in once.items())
    values = [value.requires_grad_() for value in leaves.values()]
    assert torch.autograd.gradcheck(triton_form(fixed), values, fast_mode=True)


def test_writes_stay_in_their_rows(run_with_gradients, guarded_memory):
    leaves, fixed = make(21, 20, 20, 17, True, torch.float32)
    got = run_with_gradients(triton_form(fixed), leaves, NAMES)
    assert any(memory.numel() >= got["dquery"].numel() for memory in guarded_memory)


def test_is_an_op_of_torch_library():
    leaves, (positive, negative, log_q, temperature, tile) = make(6, 4, 8, 5, True, torch.float32)
    values = [value.requires_grad_() for value in leaves.values()]
    arguments = (*values, positive, negative, log_q, temperature, tile)
    torch.library.opcheck(torch.ops.hydrarec.infonce_triton, arguments)


@pytest.mark.parametrize(
    ("dtype", "d", "message"),
    [(torch.float32, 129, "width 129, expected at most 128"), (torch.bfloat16, 8, "bfloat16")],
)
def test_what_it_cannot_do_it_refuses(dtype, d, message):
    leaves, fixed = make(3, 2, d, 2, False, dtype)
    with pytest.raises(BackendUnavailableError, match=message):
        triton_form(fixed)(**leaves)
