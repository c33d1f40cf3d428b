"""The ladder of the scan: reference == dense masked form == torch, outputs and every gradient."""

import logging
import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from user_model.ops import BackendUnavailableError, hydra_scan, plan, rope, scan_cpu
from user_model.ops.backends import ON_CPU

FAST = ON_CPU[1:]
Q = 16
LENGTHS = {
    "ragged": [1, 2, 3, Q - 1, Q, Q + 1, 2 * Q, 2 * Q + 1, 130],
    "ones": [1] * 20,
    "long": [200],
    "empty between": [0, 3, 0, 0, 2 * Q + 5, 0],
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


def make(lengths, H=2, P=16, N=16, decay="plain", initial=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    T = sum(lengths)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    of_A, of_dt = DECAYS[decay]
    uniform = torch.rand(H, generator=generator, dtype=torch.float64)
    inputs = {
        "x": random(T, H, P),
        "dt": of_dt(random(T, H)),
        "A": of_A(-torch.exp(uniform * math.log(16.0))),
        "B": random(T, H, N) / math.sqrt(N),
        "C": random(T, H, N),
        "D": random(H),
        "z": random(T, H, P),
        "dt_bias": 0.1 * random(H),
    }
    # Rounded to float32, so that float32 forms start from the very same numbers.
    if initial:
        inputs["initial_state"] = random(len(lengths), H, N, P)
    return {name: value.float().double() for name, value in inputs.items()}


def scan(cu_seqlens, backend, **options):
    options.setdefault("plan", plan(cu_seqlens, chunk=Q))

    def op(x, dt, A, B, C, D, z=None, **rest):
        return hydra_scan(
            x, dt, A, B, C, D, z, cu_seqlens,
            return_final_state=True, backend=backend, **rest, **options,
        )  # fmt: skip

    return op


def dense(cu_seqlens, position_offset=None):
    """y = (C B^T * decay * same sequence, not later) x: the whole matrix, by autograd."""
    lengths = cu_seqlens.diff()
    T, S = int(cu_seqlens[-1]), len(lengths)
    segments = torch.repeat_interleave(torch.arange(S), lengths)
    past = (segments[:, None] == segments) & torch.ones(T, T, dtype=torch.bool).tril()
    held = (segments[:, None] == torch.arange(S)).double()  # token of sequence, [T, S]

    def op(x, dt, A, B, C, D, z=None, dt_bias=0.0, initial_state=None):
        step = torch.logaddexp(dt + dt_bias, torch.zeros(()).to(dt))
        log = (step * A).T  # [H, T]
        # Sums between two tokens, never a difference of two cumulative sums.
        between = torch.zeros(len(A), T, T).to(x)
        for i in range(1, T):
            before = between[:, i - 1].clone()
            before[:, i:] = 0
            between[:, i] = torch.where(past[i], before + log[:, i, None], 0.0)
            between[:, i, i] = 0
        weights = between.masked_fill(~past, -torch.inf).exp()
        scores = torch.einsum("ihn,jhn->hij", C, B) * weights
        y = torch.einsum("hij,jh,jhp->ihp", scores, step, x) + D[:, None] * x
        first = cu_seqlens[:-1][segments]
        since = torch.exp(between[:, torch.arange(T), first] + log[:, first])  # [H, T]
        last = (cu_seqlens[1:] - 1).clamp(min=0)
        final = torch.einsum("ts,hst,th,thn,thp->shnp", held, weights[:, last], step, B, x)
        if initial_state is not None:
            y = y + torch.einsum("thn,ht,thnp->thp", C, since, initial_state[segments])
            kept = torch.where(lengths > 0, since[:, last], 1.0).T
            final = final + kept[..., None, None] * initial_state
        return (y if z is None else y * rope(z, cu_seqlens, position_offset)), final

    return op


OUTPUTS = ("y", "final_state")


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_forms_agree(lengths, decay, bounds, compare, run_with_gradients):
    cu_seqlens, inputs = bounds(lengths), make(lengths, decay=decay)
    expected = run_with_gradients(scan(cu_seqlens, "reference"), inputs, OUTPUTS)
    compare(run_with_gradients(dense(cu_seqlens), inputs, OUTPUTS), expected, 1e-12)
    singles = {name: value.float() for name, value in inputs.items()}
    for backend in FAST:
        form = scan(cu_seqlens, backend)
        compare(run_with_gradients(form, inputs, OUTPUTS), expected, 1e-12)
        compare(run_with_gradients(form, singles, OUTPUTS), expected, 1e-5, dA=1e-3)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(("P", "N"), [(16, 32), (32, 16), (32, 32)])
def test_widths(P, N, backend, bounds, compare, run_with_gradients):
    lengths = [1, 2, 3, 31, 32, 33, 65]
    cu_seqlens, inputs = bounds(lengths), make(lengths, H=3, P=P, N=N)
    options = {"position_offset": torch.arange(len(lengths)) * 7, "plan": plan(cu_seqlens)}
    expected = run_with_gradients(scan(cu_seqlens, "reference", **options), inputs, OUTPUTS)
    compare(
        run_with_gradients(scan(cu_seqlens, backend, **options), inputs, OUTPUTS), expected, 1e-12
    )


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("tokens", [32, 96])
def test_a_sequence_of_many_stretches(
    tokens, decay, monkeypatch, bounds, compare, run_with_gradients
):
    """The backward takes a stretch at a time: each begins with the state that is kept before it."""
    lengths = [130, 33, 0, 96, 5, 200, 97]
    cu_seqlens, inputs = bounds(lengths), make(lengths, P=32, N=32, decay=decay)
    whole = run_with_gradients(scan(cu_seqlens, "cpu"), inputs, OUTPUTS)
    monkeypatch.setattr(scan_cpu, "STRETCH_TOKENS", tokens)
    found = run_with_gradients(scan(cu_seqlens, "cpu"), inputs, OUTPUTS)
    assert all(torch.equal(found[name], whole[name]) for name in OUTPUTS)
    compare(found, run_with_gradients(scan(cu_seqlens, "torch"), inputs, OUTPUTS), 1e-12)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("without", [["z"], ["dt_bias"], ["initial_state"], ["z", "initial_state"]])
def test_without_optional_inputs(without, backend, bounds, compare, run_with_gradients):
    lengths = [5, 1, 37]
    cu_seqlens, inputs = bounds(lengths), make(lengths)
    inputs = {name: value for name, value in inputs.items() if name not in without}
    expected = run_with_gradients(scan(cu_seqlens, "reference"), inputs, OUTPUTS)
    compare(run_with_gradients(scan(cu_seqlens, backend), inputs, OUTPUTS), expected, 1e-12)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("kept", [0, 1], ids=OUTPUTS)
def test_gradients_through_one_output(kept, backend, bounds, compare, run_with_gradients):
    """The other output gets no gradient at all: None, not zeros."""
    lengths = [5, 1, 37]
    cu_seqlens, inputs = bounds(lengths), make(lengths)
    if OUTPUTS[kept] == "final_state":  # C, D and z do not reach it
        fixed = {name: inputs.pop(name) for name in ("C", "D", "z")}
    else:
        fixed = {}

    def only(backend):
        return lambda **leaves: (scan(cu_seqlens, backend)(**leaves, **fixed)[kept],)

    expected = run_with_gradients(only("reference"), inputs, OUTPUTS[kept : kept + 1])
    compare(run_with_gradients(only(backend), inputs, OUTPUTS[kept : kept + 1]), expected, 1e-12)


@pytest.mark.parametrize("backend", FAST)
def test_gradcheck(backend, bounds):
    lengths = [5, 1, 0, 3]
    cu_seqlens, inputs = bounds(lengths), make(lengths, P=4, N=3)
    form = scan(cu_seqlens, backend, plan=plan(cu_seqlens, chunk=2))
    leaves = [value.requires_grad_() for value in inputs.values()]
    assert torch.autograd.gradcheck(
        lambda *values: form(**dict(zip(inputs, values, strict=True))), leaves, fast_mode=True
    )


@pytest.mark.parametrize("chunk", [1, 2, 8, 32, 64])
def test_chunk_size_does_not_matter(chunk, bounds, compare, run_with_gradients):
    lengths = [5, 1, 37, 70]
    cu_seqlens, inputs = bounds(lengths), make(lengths)
    expected = run_with_gradients(scan(cu_seqlens, "torch"), inputs, OUTPUTS)
    form = scan(cu_seqlens, "torch", plan=plan(cu_seqlens, chunk=chunk))
    compare(run_with_gradients(form, inputs, OUTPUTS), expected, 1e-12)


@pytest.mark.parametrize("backend", ON_CPU)
def test_no_tokens(backend):
    for lengths in ([], [0, 0]):
        cu_seqlens, inputs = torch.tensor([0, *lengths]), make(lengths)
        leaves = {name: value.requires_grad_() for name, value in inputs.items()}
        y, final = scan(cu_seqlens, backend)(**leaves)
        assert y.shape == (0, 2, 16)
        assert torch.equal(final, inputs["initial_state"])
        (y.sum() + final.sum()).backward()
        if lengths:
            assert torch.equal(inputs["initial_state"].grad, torch.ones_like(final))


@pytest.mark.parametrize("backend", FAST)
def test_views_are_as_good_as_copies(backend, bounds, compare, run_with_gradients):
    """Slices of one projection, as a model makes them: odd offsets, rows far apart."""
    lengths = [5, 1, 37]
    cu_seqlens, inputs = bounds(lengths), make(lengths)
    expected = run_with_gradients(scan(cu_seqlens, backend), inputs, OUTPUTS)

    def on_views(**leaves):
        names = ("x", "B", "C", "z")
        wide = torch.cat([leaves["dt"][..., None], *(leaves[name] for name in names)], -1)
        views = wide.split([1, 16, 16, 16, 16], -1)
        return scan(cu_seqlens, backend)(**leaves | dict(zip(names, views[1:], strict=True)))

    compare(run_with_gradients(on_views, inputs, OUTPUTS), expected, 1e-14)


@pytest.mark.parametrize("backend", ON_CPU)
def test_low_precision_is_computed_in_float32(backend, bounds, compare):
    lengths = [5, 1, 37]
    cu_seqlens, inputs = bounds(lengths), make(lengths)
    halves = {name: value.bfloat16() for name, value in inputs.items()}
    y, final = scan(cu_seqlens, backend)(**halves)
    assert (y.dtype, final.dtype) == (torch.bfloat16, torch.float32)
    widened = {name: value.double() for name, value in halves.items()}
    y_wide, final_wide = scan(cu_seqlens, backend)(**widened)
    compare({"y": y, "final": final}, {"y": y_wide.bfloat16(), "final": final_wide}, 1e-5, y=2e-3)


def test_one_token_by_hand():
    """h = s B x, y = h C + D x with s = softplus(0) = log 2; RoPE at position 0 turns nothing."""
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    x, z = torch.tensor([[[3.0, 5.0]]]).double(), torch.tensor([[[2.0, 7.0]]]).double()
    y, final = hydra_scan(
        x, torch.zeros(1, 1).double(), -torch.ones(1).double(), 2 * one, 4 * one,
        torch.full((1,), 10.0).double(), z, torch.tensor([0, 1]), return_final_state=True,
    )  # fmt: skip
    step = math.log(2.0)
    assert torch.allclose(final, step * 2 * x[None, :, 0], rtol=1e-15)
    assert torch.allclose(y, z * x * (step * 8 + 10), rtol=1e-15)


@pytest.mark.parametrize("backend", ["triton", "mamba_ssm"])
def test_a_backend_that_needs_a_gpu_says_so_on_a_cpu(backend, bounds):
    with pytest.raises(BackendUnavailableError, match=backend):
        scan(bounds([3]), backend)(**make([3]))


def test_cpu_refuses_tensors_elsewhere():
    from user_model.ops.backends import resolve

    with pytest.raises(BackendUnavailableError, match=r"'cpu' got tensors on meta.*'auto'"):
        resolve("hydra_scan", "cpu", ["reference", "cpu"], torch.device("meta"))


def test_where_the_kernels_cannot_be_compiled_torch_runs_and_one_warning_says_so():
    """In a process of its own, with a numba that cannot be imported."""
    program = """
import logging, sys
logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
sys.modules["numba"] = None
import torch
from user_model import Hydra, HydraConfig
from user_model.ops import BackendUnavailableError, backends
vectors, cu_seqlens = torch.randn(5, 16), torch.tensor([0, 2, 5])
users = Hydra(HydraConfig(dim=16))(vectors, cu_seqlens)
assert users.shape == (5, 16) and bool(users.isfinite().all())
try:
    Hydra(HydraConfig(dim=16, backend="cpu"))(vectors, cu_seqlens)
except BackendUnavailableError as error:
    print("raised", error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert [line for line in lines if line.startswith("WARNING")] == [lines[0]]
    assert "the compiled CPU kernels are missing" in lines[0]
    assert "raised" in lines[-1]
    assert "'cpu' cannot be compiled here" in lines[-1]


def test_unknown_backend_lists_those_there_are(bounds):
    with pytest.raises(ValueError, match=r"'cuda'.*'auto', 'reference', 'torch'"):
        scan(bounds([3]), "cuda")(**make([3]))


def test_auto_says_what_it_took_once(bounds, caplog):
    from user_model.ops import backends

    backends._announce.cache_clear()
    caplog.set_level(logging.INFO, logger="user_model.ops.backends")
    for _ in range(3):
        scan(bounds([3]), "auto")(**make([3]))
    assert [r.getMessage() for r in caplog.records] == [
        "hydra_scan: backend 'auto' takes 'cpu' on cpu"
    ]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("x", torch.zeros(4, 2)),
        ("dt", torch.zeros(4, 3)),
        ("A", torch.zeros(3)),
        ("B", torch.zeros(4, 2, 16, dtype=torch.float32)),
        ("C", torch.zeros(4, 2, 15).double()),
        ("D", torch.zeros(2, dtype=torch.int64)),
        ("z", torch.zeros(4, 2, 8).double()),
        ("dt_bias", torch.zeros(1).double()),
        ("initial_state", torch.zeros(1, 2, 16, 16).double()),
    ],
)
def test_wrong_shape_or_type_names_the_argument(name, wrong, bounds):
    with pytest.raises(ValueError, match=f"{name}: got .*expected"):
        scan(bounds([3, 1]), "torch")(**make([3, 1]) | {name: wrong})


@pytest.mark.parametrize("offset", [torch.zeros(3, dtype=torch.int64), torch.zeros(2)])
def test_wrong_offset(offset, bounds):
    with pytest.raises(ValueError, match=r"position_offset: got .*expected int64 \[2\]"):
        scan(bounds([3, 1]), "torch", position_offset=offset)(**make([3, 1]))


def test_softplus_is_exact_far_from_zero(bounds):
    """At dt = 30, softplus(dt) - dt = 9e-14: lost, where softplus turns linear at 20."""
    inputs = make([1])
    inputs["dt"], inputs["dt_bias"] = torch.full((1, 2), 30.0).double(), torch.zeros(2).double()
    _, final = scan(bounds([1]), "torch")(
        **inputs | {"initial_state": torch.zeros(1, 2, 16, 16).double()}
    )
    step = math.log1p(math.exp(30.0))
    expected = step * inputs["B"][0][:, :, None] * inputs["x"][0][:, None, :]
    assert float((final[0] / expected - 1).abs().max()) < 1e-15
    assert float(F.softplus(torch.tensor(30.0).double()) / step - 1) < -1e-15
