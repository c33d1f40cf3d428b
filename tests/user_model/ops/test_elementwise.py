"""Gated norm, product with RoPE(z) and SwiGLU: compiled == PyTorch's operations, every gradient."""

import math

import pytest
import torch

from user_model.ops import gated_norm, plan, rope_product, swiglu
from user_model.ops.elementwise_cpu import PART_TOKENS
from user_model.ops.rotary import rope_reference

H = 3
# Whole vectors, less than one, and an odd number of pairs; 70 and 128 cross a wide vector.
WIDTHS = [32, 12, 6, 18]
HIDDEN = [5, 16, 70, 128]
OPS = ("gated_norm", "rope_product", "rope_product from an offset", "swiglu")
CASES = [(op, width) for op in OPS for width in (HIDDEN if op == "swiglu" else WIDTHS)]
# A last part that is not full, a full one, one token, none.
LENGTHS = {
    "many parts": [700, 0, 1, 2, PART_TOKENS],
    "a part": [PART_TOKENS],
    "one token": [1],
    "empty": [0, 0],
}


def make(op, width, n_tokens):
    generator = torch.Generator().manual_seed(width)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).float().double()

    if op == "swiglu":
        return {"gate_up": random(n_tokens, 2 * width)}
    if op == "gated_norm":
        weight = random(H, width)
        return {
            "y": random(n_tokens, H, width),
            "gate": random(n_tokens, H, width),
            "weight": weight,
        }
    return {"y": random(n_tokens, H, width), "z": random(n_tokens, H, width)}


def form(op, lengths, backend):
    """The op as a function of its tensors alone."""
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0)
    if op == "swiglu":
        return lambda gate_up: (swiglu(gate_up, backend=backend),)
    if op == "gated_norm":
        return lambda y, gate, weight: (gated_norm(y, gate, weight, 1e-6, backend=backend),)
    offset = 1000 * torch.arange(len(lengths)) + 1 if op.endswith("offset") else None
    return lambda y, z: (rope_product(y, z, cu_seqlens, position_offset=offset, backend=backend),)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize(("op", "width"), CASES)
def test_compiled_is_torch(op, width, lengths, compare, run_with_gradients):
    inputs = make(op, width, sum(lengths))
    expected = run_with_gradients(form(op, lengths, "torch"), inputs, ["out"])
    compiled = form(op, lengths, "cpu")
    compare(run_with_gradients(compiled, inputs, ["out"]), expected, 1e-12)
    singles = {name: value.float() for name, value in inputs.items()}
    compare(run_with_gradients(compiled, singles, ["out"]), expected, 1e-5)


@pytest.mark.parametrize(("op", "width"), CASES)
def test_views_are_as_good_as_copies(op, width, same_on_views):
    lengths = [5, 1, 37]
    inputs = make(op, width, sum(lengths))
    same_on_views(form(op, lengths, "cpu"), inputs)


@pytest.mark.parametrize("op", OPS)
def test_the_gradient_of_a_sum_is_expanded_not_laid_out(op, compare):
    lengths = [5, 1, 37]
    inputs = make(op, 12, sum(lengths))
    gradients = []
    for backend in ("torch", "cpu"):
        leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
        form(op, lengths, backend)(**leaves)[0].sum().backward()
        gradients.append({name: value.grad for name, value in leaves.items()})
    compare(gradients[1], gradients[0], 1e-12)


@pytest.mark.parametrize(("op", "width"), [(op, 6) for op in OPS])
def test_gradcheck(op, width):
    lengths = [2, 0, 3]
    leaves = [value.requires_grad_() for value in make(op, width, sum(lengths)).values()]
    assert torch.autograd.gradcheck(form(op, lengths, "cpu"), leaves, fast_mode=True)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize(("op", "width"), CASES)
def test_a_row_never_reaches_another(op, width, poison, run_with_gradients):
    """Values and gradients of all other rows stay the same to the bit."""
    lengths = [5, 1, 37]
    inputs = make(op, width, sum(lengths))
    clean = run_with_gradients(form(op, lengths, "cpu"), inputs, ["out"])
    others = torch.arange(sum(lengths)) != 3
    for name in inputs.keys() - {"weight"}:
        poisoned = inputs | {name: inputs[name].clone()}
        poisoned[name][3] = poison
        dirty = run_with_gradients(form(op, lengths, "cpu"), poisoned, ["out"])
        for tensor in clean.keys() - {"dweight"}:
            assert torch.equal(dirty[tensor][others], clean[tensor][others]), (name, tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("op", ["gated_norm", "swiglu"])
def test_gates_far_from_zero(op, dtype, compare, run_with_gradients):
    """Beyond e^88 in float32 a sigmoid is 0 or 1, its slope 0; nothing overflows."""
    inputs = {name: value.to(dtype) for name, value in make(op, 16, 40).items()}
    gates = inputs["gate_up" if op == "swiglu" else "gate"].view(40, -1)
    gates[:, :16] *= torch.logspace(0, 4, 40, dtype=dtype)[:, None]
    expected = run_with_gradients(form(op, [40], "torch"), inputs, ["out"])
    got = run_with_gradients(form(op, [40], "cpu"), inputs, ["out"])
    compare(got, expected, 1e-5 if dtype == torch.float32 else 1e-12)


def test_gated_norm_by_hand():
    """y * silu(0) = 0 but for one of two columns: 3 silu(g), of which the rms is 1/sqrt(2)."""
    y, gate = torch.tensor([[[3.0, 5.0]]]).double(), torch.tensor([[[2.0, 0.0]]]).double()
    weight = torch.tensor([[7.0, 1.0]]).double()
    for backend in ("torch", "cpu"):
        out = gated_norm(y, gate, weight, 0.0, backend=backend)
        assert out.flatten().tolist() == pytest.approx([7.0 * math.sqrt(2.0), 0.0], rel=1e-15)


def test_swiglu_by_hand():
    """silu(log 3) = log 3 * 3/4."""
    gate_up = torch.tensor([[0.0, math.log(3.0), 5.0, 8.0]], dtype=torch.float64)
    for backend in ("torch", "cpu"):
        out = swiglu(gate_up, backend=backend)
        assert out.flatten().tolist() == pytest.approx([0.0, math.log(3.0) * 0.75 * 8], rel=1e-15)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_rope_product_is_the_definition(backend, compare, bounds):
    lengths = [5, 0, 1, 37]
    cu_seqlens, offset = bounds(lengths), torch.tensor([0, 3, 100_000, 7])
    inputs = make("rope_product", 12, sum(lengths))
    for given in (None, offset):
        out = rope_product(
            **inputs, cu_seqlens=cu_seqlens, position_offset=given, plan=plan(cu_seqlens),
            backend=backend,
        )  # fmt: skip
        expected = inputs["y"] * rope_reference(inputs["z"], cu_seqlens, given)
        compare({"out": out}, {"out": expected}, 1e-12)


@pytest.mark.parametrize("backend", ["auto", "cpu"])
@pytest.mark.parametrize("op", OPS)
def test_low_precision_is_computed_in_float32(op, backend, compare, run_with_gradients):
    lengths = [5, 1, 37]
    inputs = {name: value.bfloat16() for name, value in make(op, 12, sum(lengths)).items()}
    wide = {name: value.double() for name, value in inputs.items()}
    got = run_with_gradients(form(op, lengths, backend), inputs, ["out"])
    expected = run_with_gradients(form(op, lengths, "torch"), wide, ["out"])
    assert {value.dtype for value in got.values()} == {torch.bfloat16}
    # Rounding a result to bfloat16 costs 1e-3; that of the cotangent, as much again.
    compare(got, expected, 4e-3)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("y", torch.zeros(4, 6), r"y \[4, 6\]"),
        ("gate", torch.zeros(4, 3, 5), r"gate \[4, 3, 5\]"),
        ("weight", torch.zeros(6), r"weight \[6\]"),
    ],
)
def test_wrong_shapes_of_gated_norm(name, wrong, message, backend):
    inputs = make("gated_norm", 6, 4) | {name: wrong.double()}
    with pytest.raises(ValueError, match=rf"gated_norm: got .*{message}.*expected \[T, H, P\]"):
        form("gated_norm", [4], backend)(**inputs)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize(
    ("y", "z", "message"),
    [
        ((4, 6), (4, 6), r"y \[4, 6\]"),
        ((4, 3, 6), (4, 3, 4), r"z \[4, 3, 4\]"),
        ((4, 3, 5), (4, 3, 5), r"y \[4, 3, 5\].*P even"),
    ],
)
def test_wrong_shapes_of_rope_product(y, z, message, backend):
    with pytest.raises(ValueError, match=f"rope_product: got .*{message}"):
        form("rope_product", [4], backend)(torch.zeros(y), torch.zeros(z))


def test_wrong_seams_and_offsets_of_rope_product(bounds):
    y = torch.zeros(4, 3, 6)
    with pytest.raises(ValueError, match="cu_seqlens: ends at 3, expected 4"):
        rope_product(y, y, bounds([3]))
    with pytest.raises(ValueError, match=r"position_offset: got .*expected int64 \[1\]"):
        rope_product(y, y, bounds([4]), position_offset=torch.zeros(1))


@pytest.mark.parametrize("shape", [(4,), (4, 5), (4, 2, 6)])
def test_wrong_shapes_of_swiglu(shape):
    with pytest.raises(ValueError, match=r"swiglu: got \[4.*expected \[T, 2F\]"):
        swiglu(torch.zeros(shape))


@pytest.mark.parametrize("op", OPS)
def test_unknown_backend(op):
    with pytest.raises(ValueError, match="got backend 'abacus', expected one of 'auto'"):
        form(op, [4], "abacus")(**make(op, 6, 4))


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize(("op", "name"), [("gated_norm", "gate"), ("rope_product", "z")])
def test_tensors_of_two_types_are_refused(op, name, backend):
    """The compiled form reads memory as one type: another one's would be nonsense."""
    inputs = make(op, 6, 4)
    inputs[name] = inputs[name].float()
    with pytest.raises(ValueError, match=rf"{op}: {name}: got .*float32, expected .*float64"):
        form(op, [4], backend)(**inputs)


def test_zero_rows_without_eps_are_nan_as_in_pytorch():
    """0 / 0, not an exception from inside a kernel."""
    zeros = torch.zeros(2, 1, 6)
    for backend in ("torch", "cpu"):
        assert gated_norm(zeros, zeros, torch.ones(1, 6), 0.0, backend=backend).isnan().all()
