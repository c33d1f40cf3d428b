"""Root mean square norm: compiled == PyTorch's, both gradients; the module of it."""

import math

import pytest
import torch
from torch.nn import functional

from user_model.layers import RMSNorm
from user_model.ops import rms_norm
from user_model.ops.rms_norm import LEAST_COMPILED
from user_model.ops.rms_norm_cpu import PART_TOKENS

EPS = 1e-6
# Less than a vector, whole ones, one too many.
WIDTHS = [2, 6, 16, 64, 33]
TOKENS = [0, 1, PART_TOKENS, 2 * PART_TOKENS + 77]


def make(n_tokens, width):
    generator = torch.Generator().manual_seed(width)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in {"x": (n_tokens, width), "weight": (width,)}.items()
    }


def form(backend):
    return lambda **tensors: (rms_norm(**tensors, eps=EPS, backend=backend),)


def pytorchs(x, weight):
    return (functional.rms_norm(x, weight.shape, weight, EPS),)


@pytest.mark.parametrize("n_tokens", TOKENS)
@pytest.mark.parametrize("width", WIDTHS)
def test_compiled_is_pytorchs(width, n_tokens, compare, run_with_gradients):
    tensors = make(n_tokens, width)
    expected = run_with_gradients(pytorchs, tensors, ["out"])
    compare(run_with_gradients(form("torch"), tensors, ["out"]), expected, 0)
    compare(run_with_gradients(form("cpu"), tensors, ["out"]), expected, 1e-14)
    singles = {name: value.float() for name, value in tensors.items()}
    compare(run_with_gradients(form("cpu"), singles, ["out"]), expected, 1e-5)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_by_hand(backend):
    x, weight = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([1.0, 10.0])
    out = rms_norm(x, weight, 12.5, backend=backend)
    assert out.flatten().tolist() == pytest.approx([0.6, 8.0, 0.0, 0.0])


def test_views_are_as_good_as_copies(same_on_views):
    same_on_views(form("cpu"), make(133, 12))


def test_gradcheck():
    leaves = [value.requires_grad_() for value in make(5, 3).values()]
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, EPS, backend="cpu"), leaves)


def test_the_op_keeps_torchs_rules():
    arguments = tuple(value.float().requires_grad_() for value in make(70, 12).values())
    torch.library.opcheck(torch.ops.hydrarec.rms_norm_cpu, (*arguments, EPS))


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_token_never_reaches_another(poison, run_with_gradients):
    """Values and gradients of all other tokens stay the same to the bit."""
    tensors = make(133, 12)
    clean = run_with_gradients(form("cpu"), tensors, ["out"])
    poisoned = tensors | {"x": tensors["x"].clone()}
    poisoned["x"][70, 3] = poison
    dirty = run_with_gradients(form("cpu"), poisoned, ["out"])
    others = torch.arange(133) != 70
    for name in ("out", "dx"):
        assert torch.equal(dirty[name][others], clean[name][others])
    assert not dirty["out"][70, 3].isfinite()


def test_auto_compiles_where_the_result_is_large():
    def took(n_tokens, backend):
        x, weight = (value.requires_grad_() for value in make(n_tokens, 64).values())
        out = rms_norm(x, weight, EPS, backend=backend)
        return "compiled" if "rms_norm_cpu" in type(out.grad_fn).__name__ else "torch"

    least = LEAST_COMPILED // (8 * 64)
    assert took(least, "auto") == "compiled"
    assert took(least - 1, "auto") == "torch"
    assert took(1, "cpu") == "compiled"
    assert took(least, "torch") == "torch"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_pytorchs(dtype):
    tensors = {name: value.to(dtype) for name, value in make(40, 12).items()}
    got = rms_norm(**tensors, eps=EPS, backend="cpu")
    assert got.dtype == dtype
    assert torch.equal(got, pytorchs(**tensors)[0])


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_the_module_is_torchs(backend, compare):
    expected, module = torch.nn.RMSNorm(12, eps=EPS), RMSNorm(12, eps=EPS, backend=backend)
    compare(module.state_dict(), expected.state_dict(), 0)
    x = torch.randn(70, 12)
    compare({"y": module(x).detach()}, {"y": expected(x).detach()}, 1e-6)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize(
    ("x", "weight", "message"),
    [
        ((4, 3, 12), (12,), r"x \[4, 3, 12\]"),
        ((4, 12), (11,), r"weight \[11\]"),
        ((4, 12), (1, 12), r"weight \[1, 12\]"),
    ],
)
def test_wrong_shapes(x, weight, message, backend):
    with pytest.raises(ValueError, match=rf"rms_norm: got .*{message}.*expected \[T, d\]"):
        rms_norm(torch.zeros(x), torch.zeros(weight), EPS, backend=backend)


def test_two_types_are_refused():
    with pytest.raises(ValueError, match=r"weight: got torch\.float64, expected torch\.float32"):
        rms_norm(torch.zeros(4, 2), torch.zeros(2, dtype=torch.float64), EPS)
