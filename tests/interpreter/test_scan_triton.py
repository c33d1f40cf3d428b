"""The Triton scan in the interpreter: it is the reference, in outputs and every gradient.

New memory holds NaN, so that what a kernel forgets to write shows; the inputs are views between
rows and columns of NaN, so that what it reads out of place shows. A tile and head takes 75 ms both
ways: hence the small shapes.
"""

import math

import pytest
import torch

from user_model.ops import BackendUnavailableError, hydra_scan, plan
from user_model.ops.scan_triton import scan_over, scan_triton
from user_model.ops.scan_triton_configs import WIDTHS
from user_model.ops.tiles import TILE as Q
from user_model.ops.tiles import tile_work

LADDER = [1, 2, 3, Q - 1, Q, Q + 1, 2 * Q, 2 * Q + 1, 130]
MODES = ("aligned", "runs", "long")
DTYPES = (torch.float64, torch.float32, torch.float16)
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3}
STREAMS = ("x", "B", "C", "z")

pytestmark = pytest.mark.usefixtures("memory_holds_nan")


def make(lengths, H=1, P=16, N=16, dtype=torch.float64, states=True, without=()):
    generator = torch.Generator().manual_seed(3)
    T = sum(lengths)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = {
        "x": random(T, H, P),
        "dt": random(T, H) - 2,
        "A": -torch.exp(torch.rand(H, generator=generator, dtype=torch.float64) * math.log(16.0)),
        "B": random(T, H, N) / math.sqrt(N),
        "C": random(T, H, N),
        "D": random(H),
        "z": random(T, H, P),
        "dt_bias": 0.1 * random(H),
        "initial_state": random(len(lengths), H, N, P),
    }
    if not states:
        del inputs["initial_state"]
    kept = {name: value for name, value in inputs.items() if name not in without}
    return {name: value.to(dtype) for name, value in kept.items()}


def work_of(cu_seqlens, mode, group_tiles=1):
    return tile_work(cu_seqlens, mode=mode, group_tiles=group_tiles)


def triton_form(cu_seqlens, mode, states=None, offset=None, group_tiles=1):
    """Return the scan over a work list of this mode, on views that have NaN around them."""
    states = mode != "runs" if states is None else states
    work, batch = work_of(cu_seqlens, mode, group_tiles), plan(cu_seqlens)

    def op(x, dt, A, B, C, D, z=None, dt_bias=None, initial_state=None):
        x, B, C, z = (None if t is None else between_nans(t) for t in (x, B, C, z))
        y, final = scan_over(
            work, x, dt, A, B, C, D, z, batch, dt_bias_H=dt_bias, initial_SHNP=initial_state,
            position_offset_S=offset, return_final_state=states,
        )  # fmt: skip
        return (y, final) if states else (y,)

    return op


def between_nans(stream_THK):
    """Return the same values as a view: three rows before, four after, eight columns beside."""
    flat = stream_THK.flatten(1)
    padded = torch.nn.functional.pad(flat, (8, 8, 3, 4), value=torch.nan)
    return padded[3:-4, 8:-8].unflatten(1, stream_THK.shape[1:])


def reference_form(cu_seqlens, states=True, offset=None):
    def op(x, dt, A, B, C, D, z=None, **rest):
        result = hydra_scan(
            x, dt, A, B, C, D, z, cu_seqlens, position_offset=offset, return_final_state=states,
            backend="reference", **rest,
        )  # fmt: skip
        return result if states else (result,)

    return op


def names(states):
    return ("y", "final") if states else ("y",)


def doubled(inputs):
    return {name: value.double() for name, value in inputs.items()}


@pytest.fixture(scope="module")
def check(bounds, compare, run_with_gradients):
    """Compare with the reference in float64, from the very same numbers."""

    def run(lengths, inputs, mode, **options):
        cu_seqlens, states = bounds(lengths), mode != "runs"
        offset = 7 * torch.arange(len(lengths))
        form = triton_form(cu_seqlens, mode, offset=offset, **options)
        got = run_with_gradients(form, inputs, names(states))
        exact = reference_form(cu_seqlens, states, offset)
        expected = run_with_gradients(exact, doubled(inputs), names(states))
        dtype = inputs["x"].dtype
        looser = {"dA": 1e-3} if dtype == torch.float32 else {}
        compare(got, expected, TOLERANCES[dtype], **looser)

    return run


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_is_the_reference(mode, dtype, check):
    lengths = LADDER if dtype == torch.float64 else LADDER[:-1]
    check(lengths, make(lengths, dtype=dtype, states=mode != "runs"), mode)


@pytest.mark.parametrize(
    ("lengths", "mode"),
    [
        ([1] * (Q + 4), "runs"),
        *(([0, 3, 0, 0, 2 * Q + 5, 0], mode) for mode in MODES),
        *(([5 * Q + 3], mode) for mode in MODES),
    ],
    ids=["ones", *(f"empty {mode}" for mode in MODES), *(f"one {mode}" for mode in MODES)],
)
def test_lengths(lengths, mode, check):
    check(lengths, make(lengths, states=mode != "runs"), mode, group_tiles=2)


# A head is shared among several programs, by type, where a width is 64.
@pytest.mark.parametrize(
    ("P", "N", "mode", "dtype"),
    [
        *((P, N, "aligned", torch.float64) for P in WIDTHS for N in WIDTHS),
        (64, 32, "runs", torch.float64),
        (32, 64, "long", torch.float64),
        (64, 16, "long", torch.float32),
        (64, 64, "runs", torch.float16),
    ],
    ids=str,
)
def test_widths_and_heads(P, N, mode, dtype, check):
    lengths = [3, Q + 2]
    check(lengths, make(lengths, 2, P, N, dtype, states=mode != "runs"), mode)


def test_runs_are_aligned(bounds, compare, run_with_gradients):
    lengths = [3, 1, Q + 2, 2 * Q - 1, 5]
    cu_seqlens, inputs = bounds(lengths), make(lengths, states=False)
    runs, aligned = (
        run_with_gradients(triton_form(cu_seqlens, mode, states=False), inputs, names(False))
        for mode in ("runs", "aligned")
    )
    compare(runs, aligned, 1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_order_of_users_does_not_matter(mode, bounds, compare, run_with_gradients):
    """Bitwise where no two share a tile, but for the parameters, whose gradients are sums."""
    lengths, order = [3, Q + 2, 1, 7], [2, 0, 3, 1]
    states, inputs = mode != "runs", make(lengths, states=mode != "runs")
    spans = torch.arange(sum(lengths)).split(lengths)
    tokens = torch.cat([spans[s] for s in order])

    def moved(values):
        """Return what is of tokens or of sequences in the other order."""
        by_rows = {sum(lengths): tokens, len(lengths): torch.tensor(order)}
        rest = slice(None)
        return {name: value[by_rows.get(len(value), rest)] for name, value in values.items()}

    class Cotangents(torch.autograd.Function):
        """Meet the cotangents of the first order."""

        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            return moved({"": gradient})[""]

    form = triton_form(bounds(lengths), mode)
    other = triton_form(bounds([lengths[s] for s in order]), mode)
    first = run_with_gradients(form, inputs, names(states))
    got = run_with_gradients(
        lambda **leaves: tuple(map(Cotangents.apply, other(**leaves))), moved(inputs), names(states)
    )
    expected = moved(first)
    parameters = ("dA", "dD", "ddt_bias")
    compare(got, expected, 0.0 if states else 1e-12, **dict.fromkeys(parameters, 1e-12))


@pytest.mark.parametrize("mode", MODES)
def test_writes_stay_in_their_rows(mode, bounds, run_with_gradients, guarded_memory):
    lengths, states = [3, Q + 2], mode != "runs"
    inputs = make(lengths, 2, 64, 16, torch.float32, states)
    got = run_with_gradients(triton_form(bounds(lengths), mode), inputs, names(states))
    assert any(memory.numel() >= got["y"].numel() for memory in guarded_memory)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "decay",
    [
        lambda dt: (-16.0, torch.full_like(dt, 5.0)),
        lambda dt: (-16.0, torch.where(dt > -2, 5.0, -6.0)),
        lambda dt: (-1e-3, dt - 6),
    ],
    ids=["strong", "strong here and there", "near zero"],
)
def test_decays_in_float32(decay, mode, check):
    lengths = [3, 2 * Q + 4]
    inputs = make(lengths, states=mode != "runs")
    A, dt = decay(inputs["dt"])
    inputs |= {"A": torch.full_like(inputs["A"], A), "dt": dt.double()}
    check(lengths, {name: value.float() for name, value in inputs.items()}, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("without", [("z",), ("dt_bias", "initial_state")], ids=str)
def test_without_optional_inputs(without, mode, check):
    lengths = [5, 1, Q + 3]
    check(lengths, make(lengths, states=mode != "runs", without=without), mode)


@pytest.mark.parametrize("mode", ["aligned", "long"])
@pytest.mark.parametrize("kept", [0, 1], ids=["y", "final"])
def test_gradients_through_one_output(kept, mode, bounds, compare, run_with_gradients):
    lengths = [1, Q + 3]
    cu_seqlens, inputs = bounds(lengths), make(lengths)
    fixed = {name: inputs.pop(name) for name in ("C", "D", "z")} if kept else {}

    def only(form):
        return lambda **leaves: (form(**leaves, **fixed)[kept],)

    one = names(True)[kept : kept + 1]
    got = run_with_gradients(only(triton_form(cu_seqlens, mode)), inputs, one)
    compare(got, run_with_gradients(only(reference_form(cu_seqlens)), inputs, one), 1e-12)


@pytest.mark.parametrize("mode", ["runs", "long"])
def test_gradcheck(mode, bounds):
    lengths = [2, 0, Q + 1]
    cu_seqlens, inputs = bounds(lengths), make(lengths, states=mode != "runs")
    leaves = [value.requires_grad_() for value in inputs.values()]
    form = triton_form(cu_seqlens, mode)
    assert torch.autograd.gradcheck(
        lambda *values: form(**dict(zip(inputs, values, strict=True))), leaves, fast_mode=True
    )


def of_sequence(inputs, cu_seqlens, s):
    begin, end = int(cu_seqlens[s]), int(cu_seqlens[s + 1])
    T = int(cu_seqlens[-1])
    own = {name: value[begin:end] for name, value in inputs.items() if len(value) == T}
    if "initial_state" in inputs:
        own["initial_state"] = inputs["initial_state"][s : s + 1]
    return inputs | own


def test_aligned_is_bitwise_the_same_packed_or_alone(bounds, run_with_gradients):
    lengths = [3, 2 * Q + 1, Q]
    cu_seqlens, inputs = bounds(lengths), make(lengths, 2, dtype=torch.float32)
    packed = run_with_gradients(triton_form(cu_seqlens, "aligned"), inputs, names(True))
    form = triton_form(cu_seqlens, "aligned")
    again = run_with_gradients(form, inputs, names(True))
    assert all(torch.equal(packed[name], again[name]) for name in packed)
    for s, length in enumerate(lengths):
        y, final = triton_form(bounds([length]), "aligned")(**of_sequence(inputs, cu_seqlens, s))
        assert torch.equal(y, packed["y"][cu_seqlens[s] : cu_seqlens[s + 1]])
        assert torch.equal(final[0], packed["final"][s])


@pytest.mark.parametrize(
    ("mode", "where"),
    [("aligned", "x"), ("long", "x"), *(("runs", name) for name in ("x", "dt", "B", "C", "z"))],
)
def test_a_nan_stays_with_its_sequence(mode, where, bounds, compare, run_with_gradients):
    """The third sequence is broken in its middle; in runs mode it begins and ends within tiles.

    There the others share sums of log decays with it, and lose its part of them: last bits differ.
    """
    lengths, states = [3, 4, Q + 4, 6, 2], mode != "runs"
    cu_seqlens, inputs = bounds(lengths), make(lengths, states=states)
    form = triton_form(cu_seqlens, mode)
    clean = run_with_gradients(form, inputs, names(states))
    inputs[where][9] = math.nan
    got = run_with_gradients(form, inputs, names(states))
    broken = torch.zeros(sum(lengths), dtype=torch.bool)
    broken[7 : 11 + Q] = True
    of_tokens = ("y", "dx", "ddt", "dB", "dC", "dz")
    rest, expected = ({name: run[name][~broken] for name in of_tokens} for run in (got, clean))
    if states:
        others = [0, 1, 3, 4]
        rest |= {name: got[name][others] for name in ("final", "dinitial_state")}
        expected |= {name: clean[name][others] for name in ("final", "dinitial_state")}
    compare(rest, expected, 1e-13 if mode == "runs" else 0.0)
    assert got["y"][9].isnan().all()
    assert got["ddt"][broken].isnan().any()
    if where != "C":
        assert got["dD" if where == "z" else "dA"].isnan().all()


def test_states_carry_a_sequence_on(bounds, compare):
    length, cut = 2 * Q + 3, Q + 4
    inputs = make([length], dtype=torch.float32)
    whole, end = triton_form(bounds([length]), "aligned")(**inputs)
    halves, state = [], inputs["initial_state"]
    for begin, stop in ((0, cut), (cut, length)):
        part = {name: v[begin:stop] for name, v in inputs.items() if len(v) == length}
        form = triton_form(bounds([stop - begin]), "aligned", offset=torch.tensor([begin]))
        y, state = form(**inputs | part | {"initial_state": state})
        halves.append(y)
    compare({"y": torch.cat(halves), "final": state}, {"y": whole, "final": end}, 1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_no_tokens(mode, bounds):
    states = mode != "runs"
    for lengths in ([], [0, 0]):
        inputs = {n: v.requires_grad_() for n, v in make(lengths, states=states).items()}
        outputs = triton_form(bounds(lengths), mode)(**inputs)
        assert outputs[0].shape == (0, 1, 16)
        sum(output.sum() for output in outputs).backward()
        assert torch.equal(inputs["A"].grad, torch.zeros(1).double())
        if states:
            assert torch.equal(outputs[1], inputs["initial_state"])
            assert torch.equal(inputs["initial_state"].grad, torch.ones_like(outputs[1]))


def test_the_backend_chooses_its_work(bounds, compare):
    lengths = [4] * 9
    cu_seqlens, inputs = bounds(lengths), make(lengths, states=False)
    x, dt, A, B, C, D, z, bias = inputs.values()
    batch = plan(cu_seqlens)
    y, none = scan_triton(x, dt, A, B, C, D, z, batch, dt_bias_H=bias)
    with_final, final = scan_triton(
        x, dt, A, B, C, D, z, batch, dt_bias_H=bias, return_final_state=True
    )
    assert none is None
    expected_y, expected = reference_form(cu_seqlens)(**inputs)
    compare({"y": y, "final": final}, {"y": expected_y, "final": expected}, 1e-12)
    compare({"y": with_final}, {"y": expected_y}, 1e-12)


def test_is_an_op_of_torch_library(bounds):
    lengths = [3, 2]
    batch, work = plan(bounds(lengths)), work_of(bounds(lengths), "aligned")
    inputs = [value.requires_grad_() for value in make(lengths, dtype=torch.float32).values()]
    torch.library.opcheck(
        torch.ops.hydrarec.scan_triton.default,
        (
            *inputs, None, batch.segments, batch.positions, work.items, work.tiles, work.groups,
            False, batch.max_length, batch.n_sequences, True, True,
        ),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )  # fmt: skip


def test_compiles_in_one_graph(bounds, compare, run_with_gradients):
    """From the public function on: the plan holds the work lists."""
    lengths = [3, 2]
    inputs, cu_seqlens = make(lengths, P=64, dtype=torch.float32, states=False), bounds(lengths)
    batch = plan(cu_seqlens)

    def form(x, dt, A, B, C, D, z, dt_bias):
        options = {"dt_bias": dt_bias, "plan": batch, "backend": "triton"}
        return (hydra_scan(x, dt, A, B, C, D, z, cu_seqlens, **options),)

    compiled = torch.compile(form, fullgraph=True, backend="aot_eager")
    got = run_with_gradients(compiled, inputs, names(False))
    compare(got, run_with_gradients(form, inputs, names(False)), 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"P": 48}, r"P, the width of x, of 48, expected one of \(16, 32, 64\).*'torch'"),
        ({"N": 128}, r"N, the width of B and C, of 128, expected one of \(16, 32, 64\).*'torch'"),
        ({"dtype": torch.bfloat16}, "bfloat16"),
    ],
)
def test_what_it_cannot_do_it_refuses(change, message, bounds):
    x, dt, A, B, C, D, z, *_ = make([3], **change).values()
    with pytest.raises(BackendUnavailableError, match=message):
        scan_triton(x, dt, A, B, C, D, z, plan(bounds([3])))
