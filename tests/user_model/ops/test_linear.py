"""One map of all tokens: the compiled form == PyTorch's linear, all gradients; the module of it."""

import math

import pytest
import torch
from torch.nn import functional

from user_model.layers import Linear
from user_model.ops import linear
from user_model.ops.grouped_linear_cpu import UNIT_TOKENS
from user_model.ops.grouped_linear_cpu_kernels import BLOCK_TOKENS
from user_model.ops.linear import LEAST_COMPILED, MOST_WEIGHT

# Inputs and outputs: less than a vector, whole ones, one too many, a block of rows past the caches.
WIDTHS = [(3, 5), (16, 16), (12, 25), (128, 256), (65, 33), (40, 1), (1, 3)]
# None, one, less than a block and more, and several units.
TOKENS = [0, 1, BLOCK_TOKENS - 1, BLOCK_TOKENS + 1, 2 * UNIT_TOKENS + 77]


def make(n_tokens, inputs, outputs, *, biased):
    generator = torch.Generator().manual_seed(inputs)
    shapes = {"x": (n_tokens, inputs), "weight": (outputs, inputs), "bias": (outputs,)}
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
        if biased or name != "bias"
    }


def form(backend):
    return lambda **tensors: (linear(**tensors, backend=backend),)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("n_tokens", TOKENS)
@pytest.mark.parametrize(("inputs", "outputs"), WIDTHS)
def test_compiled_is_pytorchs(inputs, outputs, n_tokens, biased, compare, run_with_gradients):
    tensors = make(n_tokens, inputs, outputs, biased=biased)
    expected = run_with_gradients(lambda **given: (functional.linear(**given),), tensors, ["out"])
    compare(run_with_gradients(form("torch"), tensors, ["out"]), expected, 0)
    compare(run_with_gradients(form("cpu"), tensors, ["out"]), expected, 1e-14)
    singles = {name: value.float() for name, value in tensors.items()}
    compare(run_with_gradients(form("cpu"), singles, ["out"]), expected, 1e-5)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_by_hand(backend):
    x, weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 10.0], [0.0, -1.0]])
    assert linear(x, weight, backend=backend).tolist() == [[21.0, -2.0], [43.0, -4.0]]
    bias = torch.tensor([100.0, 0.5])
    assert linear(x, weight, bias, backend=backend).tolist() == [[121.0, -1.5], [143.0, -3.5]]


def test_the_result_is_contiguous():
    assert linear(**make(70, 12, 25, biased=True), backend="cpu").is_contiguous()


def test_views_are_as_good_as_copies(same_on_views):
    same_on_views(form("cpu"), make(133, 12, 25, biased=True))


def test_gradcheck():
    leaves = [value.requires_grad_() for value in make(5, 3, 4, biased=True).values()]
    assert torch.autograd.gradcheck(lambda *given: linear(*given, backend="cpu"), leaves)


def test_the_op_keeps_torchs_rules():
    x, weight, bias = (
        value.float().requires_grad_() for value in make(70, 12, 25, biased=True).values()
    )
    arguments = (x[:, None], weight.mT[None], bias[None])
    torch.library.opcheck(torch.ops.hydrarec.grouped_linear_cpu, arguments)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_token_never_reaches_another(poison, run_with_gradients):
    """Values and gradients of all other tokens stay the same to the bit."""
    tensors = make(133, 12, 25, biased=True)
    clean = run_with_gradients(form("cpu"), tensors, ["out"])
    poisoned = tensors | {"x": tensors["x"].clone()}
    poisoned["x"][70] = poison
    dirty = run_with_gradients(form("cpu"), poisoned, ["out"])
    others = torch.arange(133) != 70
    assert torch.equal(dirty["out"][others], clean["out"][others])
    assert not dirty["out"][70].isfinite().any()
    assert torch.equal(dirty["dx"], clean["dx"])


def took(tensors, backend):
    """The name of what makes the gradient."""
    out = linear(**{k: v.requires_grad_() for k, v in tensors.items()}, backend=backend)
    return (
        "torch" if type(out.grad_fn).__name__ in ("AddmmBackward0", "MmBackward0") else "compiled"
    )


@pytest.mark.parametrize("biased", [False, True])
def test_auto_compiles_where_the_batch_is_large_and_the_weight_small(biased):
    outputs = 64
    least = LEAST_COMPILED // (8 * outputs)
    widest = MOST_WEIGHT // (8 * outputs)
    assert took(make(least, 2, outputs, biased=biased), "auto") == "compiled"
    assert took(make(least - 1, 2, outputs, biased=biased), "auto") == "torch"
    assert took(make(least, widest, outputs, biased=biased), "auto") == "compiled"
    assert took(make(least, widest + 1, outputs, biased=biased), "auto") == "torch"
    assert took(make(least, outputs, 2, biased=biased), "auto") == "compiled"
    assert took(make(1, 2, outputs, biased=biased), "cpu") == "compiled"
    assert took(make(least, 2, outputs, biased=biased), "torch") == "torch"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_pytorchs(dtype):
    tensors = {name: v.to(dtype) for name, v in make(40, 12, 25, biased=True).items()}
    got = linear(**tensors, backend="cpu")
    assert got.dtype == dtype
    assert torch.equal(got, functional.linear(**tensors))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_the_module_is_torchs_drawn_in_the_same_way(backend, bias, compare):
    torch.manual_seed(0)
    expected = torch.nn.Linear(12, 25, bias=bias)
    torch.manual_seed(0)
    module = Linear(12, 25, bias=bias, backend=backend)
    assert module.state_dict().keys() == expected.state_dict().keys()
    compare(module.state_dict(), expected.state_dict(), 0)
    x = torch.randn(70, 12)
    compare({"y": module(x).detach()}, {"y": expected(x).detach()}, 1e-6)
    assert torch.equal(module(x), linear(x, module.weight, module.bias, backend=backend))


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize(
    ("x", "weight", "message"),
    [
        ((4, 3, 12), (5, 12), r"x \[4, 3, 12\]"),
        ((4, 12), (12, 5), r"weight \[12, 5\]"),
        ((4, 12), (1, 12, 5), r"weight \[1, 12, 5\]"),
    ],
)
def test_wrong_shapes(x, weight, message, backend):
    with pytest.raises(ValueError, match=rf"linear: got .*{message}.*expected \[T, I\]"):
        linear(torch.zeros(x), torch.zeros(weight), backend=backend)


def test_a_bias_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"linear: bias: got \[4\], expected \[5\]"):
        linear(torch.zeros(3, 2), torch.zeros(5, 2), torch.zeros(4))


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_two_types_are_refused(name):
    tensors = {k: v.float() for k, v in make(4, 2, 2, biased=True).items()}
    tensors[name] = tensors[name].double()
    with pytest.raises(ValueError, match=rf"{name}: got torch\.float64, expected torch\.float32"):
        linear(**tensors)


def test_unknown_backend():
    with pytest.raises(ValueError, match="got backend 'abacus', expected one of 'auto'"):
        linear(**make(4, 2, 2, biased=False), backend="abacus")
