"""Convolution and scan: reference == one after the other == compiled in one, every gradient."""

import math

import pytest
import torch
import torch.nn.functional as F

from user_model.ops import causal_conv, conv_scan, hydra_scan, plan, scan_cpu

FAST = ("torch", "cpu")
OUTPUTS = ("y", "final_state", "tails")
LENGTHS = {
    "ragged": [1, 2, 3, 0, 31, 32, 33, 130],
    "ones": [1] * 20,
    "long": [200],
    "empty between": [0, 3, 0, 0, 69, 0],
}
DECAYS = {
    "plain": (lambda A: A, lambda dt: dt - 2),
    "strong": (lambda A: torch.full_like(A, -16.0), lambda dt: torch.full_like(dt, 5.0)),
    "strong here and there": (
        lambda A: torch.full_like(A, -16.0),
        lambda dt: torch.where(dt > 0, 5.0, -6.0).to(dt),
    ),
    "near zero": (lambda A: A * 1e-3, lambda dt: dt - 8),
}
# Whole vectors, less than one, more than one; P and N equal and not.
WIDTHS = [(16, 16), (12, 6), (6, 20), (34, 5), (2, 1)]
PER_TOKEN = ("x", "selected", "z")


def make(lengths, H=2, P=12, N=6, decay="plain", without=(), seed=0):
    generator = torch.Generator().manual_seed(seed)
    T, S, K = sum(lengths), len(lengths), P + 2 * N

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    of_A, of_dt = DECAYS[decay]
    uniform = torch.rand(H, generator=generator, dtype=torch.float64)
    inputs = {
        "x": random(T, H, P),
        "selected": torch.cat((random(T, H, 2 * N), of_dt(random(T, H, 1))), -1),
        "A": of_A(-torch.exp(uniform * math.log(16.0))),
        "D": random(H),
        "z": random(T, H, P),
        "weight": random(H, K, 4) / 2,
        "bias": 0.1 * random(H, K),
        "dt_bias": 0.1 * random(H),
        "conv_state": random(S, H, K, 3),
        "initial_state": random(S, H, N, P),
    }
    # Rounded to float32, so that float32 forms start from the very same numbers.
    return {name: v.float().double() for name, v in inputs.items() if name not in without}


def form(cu_seqlens, backend, **options):
    def op(x, selected, A, D, weight, bias, z=None, **rest):
        return conv_scan(
            x, selected, A, D, z, weight, bias, cu_seqlens,
            return_final_state=True, backend=backend, **rest, **options,
        )  # fmt: skip

    return op


def composition(cu_seqlens, position_offset=None, activate_z=False):
    """The definition, by the references of both ops: convolve, split, scan."""

    def op(x, selected, A, D, weight, bias, z=None, dt_bias=None, conv_state=None, **states):
        (_, H, P), N = x.shape, selected.shape[2] // 2
        B, C, dt = selected.split([N, N, 1], -1)
        mixed, tails = causal_conv(
            torch.cat((x, B, C), -1).flatten(1), weight.flatten(0, 1), bias.flatten(), cu_seqlens,
            initial_state=None if conv_state is None else conv_state.flatten(1, 2),
            return_final_state=True, backend="reference",
        )  # fmt: skip
        x, B, C = mixed.unflatten(1, (H, -1)).split([P, N, N], -1)
        z = F.silu(z) if activate_z else z
        y, final = hydra_scan(
            x, dt[..., 0], A, B, C, D, z, cu_seqlens, dt_bias=dt_bias, **states,
            position_offset=position_offset, return_final_state=True, backend="reference",
        )  # fmt: skip
        return y, final, tails.unflatten(1, (H, -1))

    return op


def check(lengths, inputs, backends, bounds, compare, run_with_gradients, **options):
    cu_seqlens = bounds(lengths)
    expected = run_with_gradients(composition(cu_seqlens, **options), inputs, OUTPUTS)
    singles = {name: value.float() for name, value in inputs.items()}
    for backend in backends:
        op = form(cu_seqlens, backend, **options)
        compare(run_with_gradients(op, inputs, OUTPUTS), expected, 1e-12)
        compare(run_with_gradients(op, singles, OUTPUTS), expected, 1e-5, dA=1e-3)


@pytest.fixture
def check_all(bounds, compare, run_with_gradients):
    """Compare backends with the definition, in float64 and float32, outputs and all gradients."""
    return lambda lengths, inputs, backends=FAST, **options: check(
        lengths, inputs, backends, bounds, compare, run_with_gradients, **options
    )


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_forms_agree(lengths, decay, check_all):
    check_all(lengths, make(lengths, decay=decay))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(("P", "N"), WIDTHS)
def test_widths(P, N, backend, check_all):
    lengths = [1, 2, 3, 0, 31, 34]
    check_all(lengths, make(lengths, H=3, P=P, N=N), [backend])


@pytest.mark.parametrize("tokens", [32, 96])
def test_a_sequence_of_many_stretches(tokens, monkeypatch, check_all):
    monkeypatch.setattr(scan_cpu, "STRETCH_TOKENS", tokens)
    lengths = [130, 33, 0, 96, 5, 200, 97]
    check_all(lengths, make(lengths, decay="strong here and there"), ["cpu"])


@pytest.mark.parametrize(
    "without",
    [["z"], ["dt_bias"], ["conv_state"], ["initial_state"], ["conv_state", "initial_state", "z"]],
)
def test_without_optional_inputs(without, check_all):
    lengths = [5, 1, 0, 37]
    check_all(lengths, make(lengths, without=without))


@pytest.mark.parametrize("offset", [None, [0, 3, 100_000, 7]])
@pytest.mark.parametrize("activate_z", [False, True])
def test_activated_streams_and_offsets(offset, activate_z, check_all):
    lengths = [5, 1, 0, 37]
    offset = None if offset is None else torch.tensor(offset)
    check_all(lengths, make(lengths), activate_z=activate_z, position_offset=offset)


@pytest.mark.parametrize("backend", FAST)
def test_activation_without_a_stream_does_nothing(backend, bounds):
    lengths = [5, 1]
    inputs = make(lengths, without=["z"])
    plain = form(bounds(lengths), backend)(**inputs)
    activated = form(bounds(lengths), backend, activate_z=True)(**inputs)
    assert all(torch.equal(a, b) for a, b in zip(activated, plain, strict=True))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("kept", [0, 1, 2], ids=OUTPUTS)
def test_gradients_through_one_output(kept, backend, bounds, compare, run_with_gradients):
    """The other outputs get no gradient at all: None, not zeros."""
    lengths = [5, 1, 37]
    inputs = make(lengths)
    reach = {
        "y": list(inputs),
        "final_state": [n for n in inputs if n not in ("D", "z")],
        "tails": ["x", "selected", "conv_state"],
    }[OUTPUTS[kept]]
    leaves = {name: inputs[name] for name in reach}
    fixed = {name: value for name, value in inputs.items() if name not in reach}

    def only(op):
        return lambda **given: (op(**given, **fixed)[kept],)

    cu_seqlens, names = bounds(lengths), OUTPUTS[kept : kept + 1]
    expected = run_with_gradients(only(composition(cu_seqlens)), leaves, names)
    got = run_with_gradients(only(form(cu_seqlens, backend)), leaves, names)
    compare(got, expected, 1e-12)


@pytest.mark.parametrize("backend", FAST)
def test_without_states_after(backend, bounds):
    lengths = [5, 1, 37]
    inputs = make(lengths)
    z, names = inputs.pop("z"), ("x", "selected", "A", "D")
    given = [inputs.pop(name) for name in names]
    y, final, tails = conv_scan(
        *given, z, cu_seqlens=bounds(lengths), plan=plan(bounds(lengths)), backend=backend, **inputs
    )
    assert (final, tails) == (None, None)
    assert torch.equal(y, form(bounds(lengths), backend)(**make(lengths))[0])


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("activate_z", [False, True])
def test_gradcheck(activate_z, backend, bounds):
    lengths = [5, 1, 0, 3]
    inputs = make(lengths, P=4, N=3)
    op = form(bounds(lengths), backend, activate_z=activate_z)
    leaves = [value.requires_grad_() for value in inputs.values()]
    assert torch.autograd.gradcheck(
        lambda *values: op(**dict(zip(inputs, values, strict=True))), leaves, fast_mode=True
    )


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_no_tokens(backend, bounds):
    for lengths in ([], [0, 0]):
        inputs = {name: value.requires_grad_() for name, value in make(lengths).items()}
        y, final, tails = form(bounds(lengths), backend)(**inputs)
        assert y.shape == (0, 2, 12)
        assert torch.equal(final, inputs["initial_state"])
        assert torch.equal(tails, inputs["conv_state"])
        if lengths:
            (y.sum() + final.sum() + tails.sum()).backward()
            assert torch.equal(inputs["initial_state"].grad, torch.ones_like(final))
            assert torch.equal(inputs["conv_state"].grad, torch.ones_like(tails))


LAYOUTS = {
    "slices of one projection": lambda v: torch.cat((v[..., :1], v, v), -1)[
        ..., 1 : 1 + v.shape[-1]
    ],
    "heads first": lambda v: v.transpose(0, 1).contiguous().transpose(0, 1),
    "every second element": lambda v: torch.stack((v, v), -1).flatten(-2)[..., ::2],
    "from an odd element on": lambda v: torch.cat((v.flatten()[:1], v.flatten()))[1:].view(v.shape),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(("P", "N"), [(32, 16), (12, 6)])
def test_views_are_as_good_as_copies(P, N, layout, dtype, bounds, run_with_gradients):
    """As a model makes them; the gradient of y comes in the same layout."""
    lengths = [5, 1, 70]
    inputs = {name: v.to(dtype) for name, v in make(lengths, P=P, N=N).items()}
    op = form(bounds(lengths), "cpu")

    def on_views(**leaves):
        views = {name: layout(leaves[name]) for name in PER_TOKEN}
        y, *states = op(**leaves | views)
        return layout(y), *states

    def on_copies(**leaves):
        y, *states = op(**leaves)
        return layout(y), *states

    got = run_with_gradients(on_views, inputs, OUTPUTS)
    expected = run_with_gradients(on_copies, inputs, OUTPUTS)
    for name, value in expected.items():
        assert torch.equal(got[name], value), name


def spans(lengths):
    ends = torch.tensor(lengths).cumsum(0).tolist()
    return [range(end - length, end) for end, length in zip(ends, lengths, strict=True)]


def everything(inputs, lengths, bounds):
    """Outputs, and the gradients of all that is a token's or a sequence's own."""
    leaves = {name: value.detach().clone().requires_grad_() for name, value in inputs.items()}
    op = form(bounds(lengths), "cpu", activate_z=True)
    outputs = dict(zip(OUTPUTS, op(**leaves), strict=True))
    sum(value.sum() for value in outputs.values()).backward()
    own = (*PER_TOKEN, "conv_state", "initial_state")
    by_token = {"y": outputs["y"].detach()} | {f"d{name}": leaves[name].grad for name in PER_TOKEN}
    by_user = {name: outputs[name].detach() for name in OUTPUTS[1:]}
    return by_token, by_user | {f"d{name}": leaves[name].grad for name in own[3:]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_packed_is_alone_to_the_bit(dtype, bounds):
    lengths = [1, 2, 3, 0, 31, 32, 33, 700, 1, 64]
    inputs = {name: value.to(dtype) for name, value in make(lengths).items()}
    by_token, by_user = everything(inputs, lengths, bounds)
    for s, span in enumerate(spans(lengths)):
        alone = dict(inputs)
        for name in PER_TOKEN:
            alone[name] = inputs[name][list(span)]
        for name in ("conv_state", "initial_state"):
            alone[name] = inputs[name][[s]]
        tokens, user = everything(alone, [len(span)], bounds)
        for name, value in tokens.items():
            assert torch.equal(value, by_token[name][list(span)]), (s, name)
        for name, value in user.items():
            assert torch.equal(value, by_user[name][[s]]), (s, name)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("name", [*PER_TOKEN, "conv_state", "initial_state"])
def test_one_user_never_reaches_another(name, poison, bounds):
    """Values and gradients of all others stay the same to the bit, states included."""
    lengths = [3, 40, 0, 70, 1, 5]
    inputs = make(lengths)
    clean = everything(inputs, lengths, bounds)
    for victim in (1, 3, 4):
        poisoned = inputs | {name: inputs[name].clone()}
        span = spans(lengths)[victim]
        poisoned[name][span[len(span) // 2] if name in PER_TOKEN else victim] = poison
        dirty = everything(poisoned, lengths, bounds)
        others = [t for s, ts in enumerate(spans(lengths)) for t in ts if s != victim]
        kept = [s for s in range(len(lengths)) if s != victim]
        for rows, before, after in zip((others, kept), clean, dirty, strict=True):
            for tensor, value in before.items():
                assert torch.equal(after[tensor][rows], value[rows]), (victim, tensor)


@pytest.mark.parametrize(
    "cuts", [[[2, 40], [0, 1], [5, 0]], [[1] * 42, [1] + [0] * 41, [0] * 37 + [1] * 5]]
)
def test_pieces_are_the_whole(cuts, bounds, compare):
    """Three users in pieces, each piece from the states after the one before."""
    lengths = [sum(cut) for cut in cuts]
    inputs = make(lengths)
    whole = form(bounds(lengths), "cpu", position_offset=torch.tensor([0, 9, 50]))(**inputs)
    states = {name: inputs.pop(name) for name in ("initial_state", "conv_state")}
    begins = [span.start for span in spans(lengths)]
    offset, pieces = torch.tensor([0, 9, 50]), {}
    for sizes in zip(*cuts, strict=True):
        tokens = [
            t for begin, size in zip(begins, sizes, strict=True) for t in range(begin, begin + size)
        ]
        piece = inputs | {name: inputs[name][tokens] for name in PER_TOKEN}
        y, states["initial_state"], states["conv_state"] = form(
            bounds(sizes), "cpu", position_offset=offset
        )(**piece, **states)
        pieces |= dict(zip(tokens, y, strict=True))
        begins = [begin + size for begin, size in zip(begins, sizes, strict=True)]
        offset = offset + torch.tensor(sizes)
    y = torch.stack([pieces[t] for t in range(sum(lengths))])
    got = {"y": y, "final_state": states["initial_state"], "tails": states["conv_state"]}
    compare(got, dict(zip(OUTPUTS, whole, strict=True)), 1e-12)


@pytest.mark.parametrize("backend", FAST)
def test_low_precision_is_computed_in_float32(backend, bounds, compare):
    lengths = [5, 1, 37]
    halves = {name: value.bfloat16() for name, value in make(lengths).items()}
    op = form(bounds(lengths), backend)
    y, final, tails = op(**halves)
    assert (y.dtype, final.dtype, tails.dtype) == (torch.bfloat16, torch.float32, torch.bfloat16)
    wide, final_wide, _ = op(**{name: value.double() for name, value in halves.items()})
    if backend == "cpu":  # nothing between convolution and scan is rounded
        expected = {"y": wide.bfloat16(), "final": final_wide}
        compare({"y": y, "final": final}, expected, 1e-5, y=2e-3)
    else:
        compare({"y": y, "final": final}, {"y": wide, "final": final_wide}, 1e-2)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("x", (4, 24)),
        ("selected", (4, 2, 12)),
        ("selected", (4, 1, 13)),
        ("weight", (2, 24, 3)),
        ("bias", (24,)),
        ("conv_state", (1, 2, 24, 3)),
        ("A", (3,)),
        ("D", (1,)),
        ("z", (4, 2, 10)),
        ("dt_bias", (1,)),
        ("initial_state", (2, 2, 12, 6)),
    ],
)
def test_wrong_shape_names_the_argument(name, shape, backend, bounds):
    inputs = make([3, 1]) | {name: torch.zeros(shape).double()}
    with pytest.raises(ValueError, match=rf"{name}.*got.*expected"):
        form(bounds([3, 1]), backend)(**inputs)


@pytest.mark.parametrize("backend", FAST)
def test_wrong_number_of_tokens(backend, bounds):
    with pytest.raises(ValueError, match="cu_seqlens: ends at 5, expected 4"):
        form(bounds([3, 2]), backend)(**make([3, 1]))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("name", ["selected", "weight", "z"])
def test_tensors_of_another_type_are_refused(name, backend, bounds):
    inputs = make([3, 1])
    with pytest.raises(ValueError, match=rf"{name}.*got.*float32.*expected"):
        form(bounds([3, 1]), backend)(**inputs | {name: inputs[name].float()})


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_an_odd_head_width_has_no_pairs_to_turn(backend, bounds, compare):
    inputs = make([3, 1], P=5)
    with pytest.raises(ValueError, match=r"z: got head width 5, expected an even one"):
        form(bounds([3, 1]), backend)(**inputs)
    del inputs["z"]
    y, *_ = form(bounds([3, 1]), backend)(**inputs)
    compare({"y": y}, {"y": composition(bounds([3, 1]))(**inputs)[0]}, 1e-12)


@pytest.mark.parametrize("backend", FAST)
def test_wrong_offset(backend, bounds):
    with pytest.raises(ValueError, match=r"position_offset: got .*expected int64 \[2\]"):
        form(bounds([3, 1]), backend, position_offset=torch.zeros(2))(**make([3, 1]))
