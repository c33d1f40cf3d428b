"""The causal convolution: reference == F.conv1d on one sequence == torch, every gradient."""

import pytest
import torch
import torch.nn.functional as F

from user_model.ops import BackendUnavailableError, causal_conv, convolution_torch
from user_model.ops.backends import ON_CPU

FAST = ON_CPU[1:]
LENGTHS = {
    "ragged": [1, 2, 3, 4, 5, 0, 31, 130],
    "ones": [1] * 20,
    "long": [300],
    "no tokens": [0, 0],
}


def make(lengths, K=6, W=4, initial=True):
    generator = torch.Generator().manual_seed(3)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).float().double()

    inputs = {"x": random(sum(lengths), K), "weight": random(K, W), "bias": random(K)}
    if initial:
        inputs["initial_state"] = random(len(lengths), K, W - 1)
    return inputs


def conv(cu_seqlens, backend, activation="silu"):
    def op(x, weight, bias=None, initial_state=None):
        return causal_conv(
            x, weight, bias, cu_seqlens, initial_state=initial_state, return_final_state=True,
            activation=activation, backend=backend,
        )  # fmt: skip

    return op


# Neither tokens nor tails: nothing depends on anything, so there is no gradient to compare.
CASES = {
    f"{name}-{'tails' if initial else 'zeros'}": (lengths, initial)
    for name, lengths in LENGTHS.items()
    for initial in (True, False)
    if initial or sum(lengths) > 0
}


@pytest.mark.parametrize("activation", ["silu", None])
@pytest.mark.parametrize(("lengths", "initial"), CASES.values(), ids=CASES)
def test_forms_agree(lengths, initial, activation, bounds, compare, run_with_gradients):
    cu_seqlens, inputs = bounds(lengths), make(lengths, initial=initial)
    names = ("y", "tails")

    def run(backend, values):
        return run_with_gradients(connected(conv(cu_seqlens, backend, activation)), values, names)

    expected = run("reference", inputs)
    singles = {name: value.float() for name, value in inputs.items()}
    for backend in FAST:
        compare(run(backend, inputs), expected, 1e-12)
        compare(run(backend, singles), expected, 1e-5)


def connected(op):
    """Without tokens the loop never touches weight and bias: give them a zero gradient."""

    def touched(**leaves):
        y, tails = op(**leaves)
        return y + sum(0 * value.sum() for value in leaves.values()), tails

    return touched


@pytest.mark.parametrize("backend", ON_CPU)
def test_one_sequence_is_conv1d(backend, compare):
    inputs = make([50])
    x, weight, tails = inputs["x"], inputs["weight"], inputs["initial_state"]
    padded = torch.cat((tails[0], x.T), 1)[None]
    expected = F.silu(F.conv1d(padded, weight[:, None], inputs["bias"], groups=6))[0].T
    y, after = conv(torch.tensor([0, 50]), backend)(**inputs)
    compare({"y": y, "tails": after}, {"y": expected, "tails": x[-3:].T[None]}, 1e-12)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("W", [2, 3])
def test_other_widths_and_no_bias(W, backend, bounds, compare, run_with_gradients):
    cu_seqlens, inputs = bounds([5, 1, 37]), make([5, 1, 37], W=W)
    del inputs["bias"]
    forms = [
        run_with_gradients(conv(cu_seqlens, name), inputs, ("y", "tails"))
        for name in (backend, "reference")
    ]
    compare(*forms, 1e-12)


def test_blocks_do_not_matter(monkeypatch, bounds, compare, run_with_gradients):
    cu_seqlens, inputs, names = bounds([5, 1, 37]), make([5, 1, 37]), ("y", "tails")
    at_once = run_with_gradients(conv(cu_seqlens, "torch"), inputs, names)
    monkeypatch.setattr(convolution_torch, "BLOCK_BYTES", 7 * 6 * 8)
    compare(run_with_gradients(conv(cu_seqlens, "torch"), inputs, names), at_once, 1e-14)


@pytest.mark.parametrize("backend", FAST)
def test_gradcheck(backend, bounds):
    inputs = make([5, 1, 0, 3])
    leaves = [value.requires_grad_() for value in inputs.values()]
    form = conv(bounds([5, 1, 0, 3]), backend)
    assert torch.autograd.gradcheck(
        lambda *values: form(**dict(zip(inputs, values, strict=True))), leaves, fast_mode=True
    )


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("x", torch.zeros(4)),
        ("weight", torch.zeros(5, 4).double()),
        ("bias", torch.zeros(6)),
        ("initial_state", torch.zeros(1, 6, 3).double()),
    ],
)
def test_wrong_shape_or_type_names_the_argument(name, wrong, bounds):
    with pytest.raises(ValueError, match=f"causal_conv: {name}: got .*expected"):
        conv(bounds([3, 1]), "torch")(**make([3, 1]) | {name: wrong})


def test_wrong_activation_and_backend(bounds):
    with pytest.raises(ValueError, match="activation: got 'relu'"):
        conv(bounds([3]), "torch", activation="relu")(**make([3]))
    with pytest.raises(BackendUnavailableError, match="triton"):
        conv(bounds([3]), "triton")(**make([3]))
