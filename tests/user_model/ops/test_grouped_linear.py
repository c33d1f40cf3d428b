"""A map of its own for each head: the compiled form == a batched product, both gradients."""

import math

import pytest
import torch

from user_model.heads import GroupedLinear
from user_model.ops import grouped_linear
from user_model.ops.grouped_linear import LEAST_COMPILED
from user_model.ops.grouped_linear_cpu import UNIT_TOKENS
from user_model.ops.grouped_linear_cpu_kernels import BLOCK_TOKENS

H = 3
# Inputs and outputs of a head: less than a vector, whole ones, an odd number of them, one too many.
WIDTHS = [(3, 5), (16, 16), (12, 25), (32, 65), (32, 129), (40, 48), (64, 7), (1, 1)]
# None, one, less than a block and more, a unit to the token, and several.
TOKENS = [0, 1, BLOCK_TOKENS - 1, BLOCK_TOKENS + 1, UNIT_TOKENS, 2 * UNIT_TOKENS + 77]


def make(n_tokens, P, M):
    generator = torch.Generator().manual_seed(P)
    shapes = {"x": (n_tokens, H, P), "weight": (H, P, M)}
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }


def form(backend):
    return lambda **tensors: (grouped_linear(**tensors, backend=backend),)


@pytest.mark.parametrize("n_tokens", TOKENS)
@pytest.mark.parametrize(("P", "M"), WIDTHS)
def test_compiled_is_a_batched_product(P, M, n_tokens, compare, run_with_gradients):
    inputs = make(n_tokens, P, M)
    expected = run_with_gradients(form("torch"), inputs, ["out"])
    compare(run_with_gradients(form("cpu"), inputs, ["out"]), expected, 1e-14)
    singles = {name: value.float() for name, value in inputs.items()}
    compare(run_with_gradients(form("cpu"), singles, ["out"]), expected, 1e-5)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_by_hand(backend):
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    weight = torch.tensor(
        [[[1.0, 10.0, 100.0], [2.0, 20.0, 200.0]], [[1.0, 0.0, -1.0], [0.0, 1.0, 1.0]]]
    )
    out = grouped_linear(x, weight, backend=backend)
    assert out.tolist() == [[[5.0, 50.0, 500.0], [3.0, 4.0, 1.0]]]


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_heads_come_first_in_memory(backend):
    out = grouped_linear(**make(5, 4, 6), backend=backend)
    assert out.stride() == (6, 5 * 6, 1)


def test_views_are_as_good_as_copies(same_on_views):
    same_on_views(form("cpu"), make(133, 12, 25))


def test_the_gradient_of_a_sum_is_expanded_not_laid_out(compare):
    inputs, gradients = make(133, 12, 25), []
    for backend in ("torch", "cpu"):
        leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
        grouped_linear(**leaves, backend=backend).sum().backward()
        gradients.append({name: value.grad for name, value in leaves.items()})
    compare(gradients[1], gradients[0], 1e-13)


def test_gradcheck():
    leaves = [value.requires_grad_() for value in make(5, 3, 4).values()]
    assert torch.autograd.gradcheck(lambda x, w: grouped_linear(x, w, backend="cpu"), leaves)


def test_the_op_keeps_torchs_rules():
    inputs = make(70, 12, 25)
    arguments = tuple(value.float().requires_grad_() for value in inputs.values())
    torch.library.opcheck(torch.ops.hydrarec.grouped_linear_cpu, arguments)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_token_never_reaches_another(poison, run_with_gradients):
    """Values and gradients of all other tokens and heads stay the same to the bit."""
    inputs = make(133, 12, 25)
    clean = run_with_gradients(form("cpu"), inputs, ["out"])
    poisoned = inputs | {"x": inputs["x"].clone()}
    poisoned["x"][70, 1] = poison
    dirty = run_with_gradients(form("cpu"), poisoned, ["out"])
    others = torch.ones(133, H, dtype=torch.bool)
    others[70, 1] = False
    assert torch.equal(dirty["out"][others], clean["out"][others])
    assert dirty["out"][70, 1].isfinite().sum() == 0
    assert torch.equal(dirty["dx"], clean["dx"])
    assert torch.equal(dirty["dweight"][[0, 2]], clean["dweight"][[0, 2]])


def test_a_token_alone_has_the_bits_that_it_has_among_others():
    inputs = make(UNIT_TOKENS + 100, 32, 65)
    together = grouped_linear(**inputs, backend="cpu")
    for token in (0, 63, 64, UNIT_TOKENS + 99):
        alone = grouped_linear(inputs["x"][token : token + 1], inputs["weight"], backend="cpu")
        assert torch.equal(alone[0], together[token])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_pytorchs(dtype):
    inputs = {name: value.to(dtype) for name, value in make(40, 12, 25).items()}
    got = grouped_linear(**inputs, backend="cpu")
    assert got.dtype == dtype
    assert torch.equal(got, grouped_linear(**inputs, backend="torch"))


def took(inputs, backend):
    """The name of what makes the gradient."""
    leaves = {name: value.requires_grad_() for name, value in inputs.items()}
    out = grouped_linear(**leaves, backend=backend)
    return (
        "compiled"
        if "grouped_linear_cpu" in repr(out.grad_fn.next_functions) + repr(out.grad_fn)
        else "torch"
    )


def test_auto_compiles_where_the_result_is_large():
    row_bytes = H * 65 * 8
    least = -(-LEAST_COMPILED // row_bytes)
    assert took(make(least, 2, 65), "auto") == "compiled"
    assert took(make(least - 1, 2, 65), "auto") == "torch"
    assert took(make(1, 2, 65), "cpu") == "compiled"
    assert took(make(least, 2, 65), "torch") == "torch"


def test_the_module_is_the_op():
    torch.manual_seed(0)
    module = GroupedLinear(H, 12, 25)
    x = torch.randn(70, H, 12)
    assert torch.equal(module(x), grouped_linear(x, module.weight, backend="torch"))
    assert torch.equal(module(x, "cpu"), grouped_linear(x, module.weight, backend="cpu"))


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize(
    ("x", "weight", "message"),
    [
        ((4, 12), (H, 12, 5), r"x \[4, 12\]"),
        ((4, H, 12), (12, 5), r"weight \[12, 5\]"),
        ((4, H, 12), (H, 11, 5), r"weight \[3, 11, 5\]"),
        ((4, 2, 12), (H, 12, 5), r"x \[4, 2, 12\]"),
    ],
)
def test_wrong_shapes(x, weight, message, backend):
    with pytest.raises(ValueError, match=rf"grouped_linear: got .*{message}.*expected \[T, H, P\]"):
        grouped_linear(torch.zeros(x), torch.zeros(weight), backend=backend)


def test_two_types_are_refused():
    with pytest.raises(ValueError, match=r"weight: got torch\.float64, expected torch\.float32"):
        grouped_linear(torch.zeros(4, H, 2), torch.zeros(H, 2, 2, dtype=torch.float64))


def test_unknown_backend():
    with pytest.raises(ValueError, match="got backend 'abacus', expected one of 'auto'"):
        grouped_linear(**make(4, 2, 2), backend="abacus")
