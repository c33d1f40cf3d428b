"""Streaming is the parallel form, cut anywhere: steps, prefills and one call over everything."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from user_model.hydra import Hydra, HydraConfig
from user_model.streaming import HydraState

HEADS = pytest.mark.parametrize("head", ["full", "lean", "mamba1", "full, history_mean"])
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
DIM = 16


def model(head, dtype=torch.float64, **kwargs):
    torch.manual_seed(3)
    head, *switches = head.split(", ")
    kwargs |= dict.fromkeys(switches, True)
    built = Hydra(HydraConfig(dim=DIM, layers=2, heads=3, state_dim=6, head=head, **kwargs))
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return built.to(dtype).eval()


def histories(lengths, dtype=torch.float64):
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(n, DIM, generator=generator, dtype=dtype) for n in lengths]


def packed(parts):
    return torch.cat(parts), torch.tensor([0, *map(len, parts)]).cumsum(0)


def ratio(got, want):
    got, want = got.detach(), want.detach()
    return float((got.double() - want.double()).norm() / want.double().norm().clamp_min(1e-300))


def assert_same_state(got, want, tolerance):
    assert torch.equal(got.positions, want.positions)
    pairs = zip(got.to_dict().items(), want.to_dict().values(), strict=True)
    wrong = {name: ratio(a, b) for (name, a), b in pairs if not ratio(a, b) <= tolerance}
    assert wrong == {}


class Operators(TorchDispatchMode):
    """Keeps the name and the shapes of every operator that runs."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **kwargs or {})
        tensors = [t for t in tree_leaves((args, result)) if isinstance(t, torch.Tensor)]
        self.calls.append((str(operator), [(t.shape, t.stride()) for t in tensors]))
        return result


def step_through(hydra, state, vectors_nLd):
    outputs = []
    for vector_nd in vectors_nLd.unbind(1):
        state, user_nd = hydra.step(state, vector_nd)
        outputs.append(user_nd)
    return state, torch.stack(outputs, 1)


@HEADS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_steps_are_the_parallel_form(head, dtype):
    hydra, vectors = model(head, dtype), torch.stack(histories([70] * 5, dtype))
    flat, cu_seqlens = packed(list(vectors))
    with torch.no_grad():
        expected, after = hydra.extend(flat, cu_seqlens)
        state, got = step_through(hydra, hydra.init_state(5), vectors)
        assert torch.equal(expected, hydra(flat, cu_seqlens))
    assert ratio(got.flatten(0, 1), expected) <= TOLERANCE[dtype]
    assert_same_state(state, after, TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("head", "timed", "changed"),
    [
        *((head, timed, {}) for head in ("full", "lean") for timed in (False, True)),
        ("mamba1", False, {}),
        *(("lean", timed, {"history_mean": True}) for timed in (False, True)),
        *((head, False, {"rope": False}) for head in ("full", "lean", "mamba1")),
        *((head, False, {"interaction": False}) for head in ("full", "lean")),
    ],
)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_split_is_the_whole(head, timed, changed, data):
    """Users are continued by stretches of any lengths, none included; single events are steps."""
    lengths = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=5))
    hydra, whole = model(head, time_gaps=timed, **changed), histories(lengths)
    clock = [torch.arange(n) ** 3 * 977 + 1_300_000_000 for n in lengths]

    def when(parts):
        return torch.cat(parts) if timed else None

    cuts = st.lists(
        st.tuples(*[st.integers(0, n) for n in lengths]), min_size=1, max_size=4
    )  # where each user's history is cut
    at = [sorted(column) for column in zip(*data.draw(cuts), strict=True)]
    with torch.no_grad():
        expected = [
            hydra(part, torch.tensor([0, len(part)]), times if timed else None)
            for part, times in zip(whole, clock, strict=True)
        ]
        state, got, done = hydra.init_state(len(lengths)), [[] for _ in lengths], [0] * len(lengths)
        for stop in [*zip(*at, strict=True), lengths]:
            parts = [h[a:b] for h, a, b in zip(whole, done, stop, strict=True)]
            times = when([t[a:b] for t, a, b in zip(clock, done, stop, strict=True)])
            done = stop
            if all(len(part) == 1 for part in parts):
                state, users = hydra.step(state, torch.cat(parts), times)
            else:
                users, state = hydra.extend(*packed(parts), state, times)
            for rows, part in zip(got, users.split([len(p) for p in parts]), strict=True):
                rows.append(part)
        assert_same_state(state, hydra.prefill(*packed(whole), times=when(clock)), 1e-12)
    for rows, want in zip(got, expected, strict=True):
        assert ratio(torch.cat(rows), want) <= 1e-12


@HEADS
def test_users_of_different_positions_step_in_one_batch(head):
    hydra, lengths = model(head), [0, 1, 3, 50, 7]
    past, events = histories(lengths), torch.stack(histories([4] * 5))
    with torch.no_grad():
        state = hydra.prefill(*packed(past))
        assert state.positions.tolist() == lengths
        after, got = step_through(hydra, state, events)
        for i, (before, new) in enumerate(zip(past, events, strict=True)):
            alone = hydra(torch.cat([before, new]), torch.tensor([0, len(before) + 4]))
            assert ratio(got[i], alone[-4:]) <= 1e-12
    assert after.positions.tolist() == [n + 4 for n in lengths]


@HEADS
def test_selected_users_go_on_as_before(head):
    hydra, rows = model(head), torch.tensor([3, 0, 3])
    events = torch.stack(histories([1] * 4))[:, 0]
    with torch.no_grad():
        state = hydra.prefill(*packed(histories([5, 0, 9, 2])))
        everyone, users = hydra.step(state, events)
        some, selected = hydra.step(state.select(rows), events[rows])
    torch.testing.assert_close(selected, users[rows], rtol=1e-12, atol=1e-13)
    assert_same_state(some, everyone.select(rows), 1e-12)


@HEADS
def test_what_is_not_a_number_stays_with_its_user(head):
    hydra, past = model(head), histories([5, 4, 9])
    events = torch.stack(histories([1] * 3))[:, 0]
    with torch.no_grad():
        clean_state, clean = hydra.step(hydra.prefill(*packed(past)), events)
        past[1][2] = float("nan")
        state, users = hydra.step(hydra.prefill(*packed(past)), events)
    assert users[1].isnan().all()
    others = torch.tensor([0, 2])
    torch.testing.assert_close(users[others], clean[others], rtol=1e-11, atol=1e-12)
    assert_same_state(state.select(others), clean_state.select(others), 1e-12)


@HEADS
def test_gradients_reach_back_through_the_state(head):
    hydra, whole = model(head), torch.stack(histories([9] * 3)).requires_grad_()
    direct = hydra(*packed(list(whole)))
    cotangent = torch.randn(direct.shape, dtype=torch.float64)
    leaves = [whole, *hydra.parameters()]
    expected = torch.autograd.grad(direct, leaves, cotangent)

    first, state = hydra.extend(*packed([h[:6] for h in whole]))
    _, last = step_through(hydra, state, whole[:, 6:])
    users = torch.cat([first.view(3, 6, DIM), last], 1).flatten(0, 1)
    got = torch.autograd.grad(users, leaves, cotangent)
    names = ["vectors", *(name for name, _ in hydra.named_parameters())]
    wrong = {
        name: ratio(a, b)
        for name, a, b in zip(names, got, expected, strict=True)
        # -exp(A_log) is taken in float32, and so is its gradient.
        if not ratio(a, b) <= (1e-6 if name.endswith("A_log") else 1e-12)
    }
    assert wrong == {}


@HEADS
def test_a_state_has_one_size_and_so_has_its_step(head):
    """The same operators on the same shapes, however long the history."""
    hydra, vector = model(head), torch.zeros(2, DIM, dtype=torch.float64)

    def operators(state):
        with torch.no_grad(), Operators() as seen:
            after, _ = hydra.step(state, vector)
        return seen.calls, after.bytes_per_user

    with torch.no_grad():
        short = operators(hydra.init_state(2))
        long = operators(hydra.prefill(*packed(histories([3000, 2999]))))
    assert len(short[0]) > 50
    assert short == long
    scan, tails = 3 * 6 * 4, 3 * (4 if head == "mamba1" else 4 + 2 * 6) * 3
    sums = DIM if "history_mean" in head else 0
    assert short[1] == 2 * (scan + tails + sums) * 8 + 8


def test_a_state_is_a_flat_dict_of_tensors():
    state = model("lean").prefill(*packed(histories([3, 1])))
    tensors = state.detach().to_dict()
    assert list(tensors) == [
        "layers.0.scan", "layers.1.scan", "layers.0.tails", "layers.1.tails", "positions",
    ]  # fmt: skip
    assert all(len(t) == state.n_users == 2 for t in tensors.values())
    assert_same_state(HydraState.from_dict(tensors), state, 0.0)
    assert_same_state(state.to("cpu"), state, 0.0)
    del tensors["layers.0.tails"]
    with pytest.raises(ValueError, match=r"state: got tensors .*to_dict"):
        HydraState.from_dict(tensors)


def test_half_precision_keeps_scan_and_sums_in_float32():
    state = model("lean", torch.bfloat16, history_mean=True).init_state(1)
    assert (state.scans[0].dtype, state.tails[0].dtype) == (torch.float32, torch.bfloat16)
    assert state.sums[0].dtype == torch.float32


def test_what_does_not_fit_is_named():
    hydra, vector = model("lean"), torch.zeros(2, DIM, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"layers.0.scan: .*\[3, 3, 6, 4\].*\[2, 3, 6, 4\]"):
        hydra.step(hydra.init_state(3), vector)
    with pytest.raises(ValueError, match="got 1 layers, expected 2"):
        hydra.step(Hydra(HydraConfig(dim=DIM, layers=1)).init_state(2), vector)
    with pytest.raises(ValueError, match=r"float32 .*expected torch.float64"):
        hydra.prefill(vector, torch.tensor([0, 2]), model("lean", torch.float32).init_state(1))
    with pytest.raises(ValueError, match=r"vector: got shape \[2, 3\], expected \[users, 16\]"):
        hydra.step(hydra.init_state(2), vector[:, :3])


def test_a_state_with_times_is_a_dict_too_and_fits_no_other_model():
    hydra, vectors = model("lean", time_gaps=True), torch.cat(histories([4]))
    state = hydra.prefill(vectors, torch.tensor([0, 3, 4]), times=torch.tensor([5, 8, 9, 70]))
    assert state.times.tolist() == [9, 70]
    assert_same_state(HydraState.from_dict(state.detach().to_dict()), state, 0.0)
    assert state.select(torch.tensor([1, 1])).times.tolist() == [70, 70]
    with pytest.raises(ValueError, match="state: got one with times, expected the other"):
        model("lean").step(state, vectors[:2])
    with pytest.raises(ValueError, match="state: got one without times"):
        hydra.step(model("lean").init_state(2), vectors[:2], torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"times: got none, expected int64 \[2\]"):
        hydra.step(state, vectors[:2])
    with pytest.raises(ValueError, match=r"times: got torch.float32 \[2\]"):
        hydra.step(state, vectors[:2], torch.tensor([1.0, 2.0]))


def test_a_state_with_sums_is_a_dict_too_and_fits_no_other_model():
    hydra, vectors = model("lean", history_mean=True), torch.cat(histories([4]))
    state = hydra.prefill(vectors, torch.tensor([0, 3, 4]))
    assert len(state.sums) == 2
    assert_same_state(HydraState.from_dict(state.detach().to_dict()), state, 0.0)
    with pytest.raises(ValueError, match="state: got one with sums, expected the other"):
        model("lean").step(state, vectors[:2])
    with pytest.raises(ValueError, match="state: got one without sums"):
        hydra.step(model("lean").init_state(2), vectors[:2])
