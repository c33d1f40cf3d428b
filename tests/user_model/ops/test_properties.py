"""What packing promises, for every op with a sequence axis, at random lengths and splits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from user_model.ops import causal_conv, hydra_scan, rope
from user_model.ops.backends import ON_CPU

H, P, N, K = 2, 4, 3, 5
PER_TOKEN = ("x", "dt", "B", "C", "z", "channels")
LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=6)
SEEDS = st.integers(0, 2**16)
backends = pytest.mark.parametrize("backend", ON_CPU[1:])


def make(n_tokens, n_sequences, seed):
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "x": random(n_tokens, H, P),
        "dt": random(n_tokens, H) - 1,
        "A": -random(H).exp(),
        "B": random(n_tokens, H, N),
        "C": random(n_tokens, H, N),
        "D": random(H),
        "z": random(n_tokens, H, P),
        "dt_bias": random(H),
        "channels": random(n_tokens, K),
        "weight": random(K, 4),
        "bias": random(K),
        "state": random(n_sequences, H, N, P),
        "tails": random(n_sequences, K, 3),
        "offset": torch.randint(0, 100, (n_sequences,), generator=generator),
    }


def run(inputs, lengths, backend):
    """Run both ops that carry a state: outputs by token, states by sequence."""
    v, cu_seqlens = inputs, torch.tensor([0, *lengths]).cumsum(0)
    y, state = hydra_scan(
        v["x"], v["dt"], v["A"], v["B"], v["C"], v["D"], v["z"], cu_seqlens,
        dt_bias=v["dt_bias"], initial_state=v["state"], position_offset=v["offset"],
        return_final_state=True, backend=backend,
    )  # fmt: skip
    convolved, tails = causal_conv(
        v["channels"], v["weight"], v["bias"], cu_seqlens,
        initial_state=v["tails"], return_final_state=True, backend=backend,
    )  # fmt: skip
    turned = rope(v["x"], cu_seqlens, v["offset"])
    return {"y": y, "conv": convolved, "rope": turned}, {"state": state, "tails": tails}


def take(inputs, tokens, sequences):
    by_sequence = ("state", "tails", "offset")
    return {
        name: value[tokens if name in PER_TOKEN else sequences]
        if name in (*PER_TOKEN, *by_sequence)
        else value
        for name, value in inputs.items()
    }


def spans(lengths):
    ends = torch.tensor(lengths).cumsum(0).tolist()
    return [range(end - length, end) for end, length in zip(ends, lengths, strict=True)]


@backends
@given(lengths=LENGTHS, seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_packed_is_alone(backend, compare, lengths, seed):
    inputs = make(sum(lengths), len(lengths), seed)
    outputs, states = run(inputs, lengths, backend)
    for s, span in enumerate(spans(lengths)):
        alone = run(take(inputs, list(span), [s]), [len(span)], backend)
        compare({name: value[list(span)] for name, value in outputs.items()}, alone[0], 1e-12)
        compare({name: value[[s]] for name, value in states.items()}, alone[1], 1e-12)


@backends
@given(lengths=LENGTHS, seed=SEEDS, data=st.data())
@settings(max_examples=25, deadline=None)
def test_order_of_users_does_not_matter(backend, compare, lengths, seed, data):
    inputs = make(sum(lengths), len(lengths), seed)
    order = data.draw(st.permutations(range(len(lengths))))
    tokens = [t for s in order for t in spans(lengths)[s]]
    outputs, states = run(inputs, lengths, backend)
    moved = run(take(inputs, tokens, order), [lengths[s] for s in order], backend)
    compare(moved[0], {name: value[tokens] for name, value in outputs.items()}, 1e-12)
    compare(moved[1], {name: value[order] for name, value in states.items()}, 1e-12)


@backends
@given(lengths=LENGTHS.filter(sum), seed=SEEDS, data=st.data())
@settings(max_examples=25, deadline=None)
def test_outputs_never_see_the_future(backend, lengths, seed, data):
    inputs = make(sum(lengths), len(lengths), seed)
    t = data.draw(st.integers(0, sum(lengths) - 1))
    before, _ = run(inputs, lengths, backend)
    changed = {name: value.clone() for name, value in inputs.items()}
    for name in PER_TOKEN:
        changed[name][t:] = 7.0
    after, _ = run(changed, lengths, backend)
    for name, value in before.items():
        assert torch.equal(value[:t], after[name][:t]), name


@backends
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@given(lengths=LENGTHS.filter(sum), seed=SEEDS, data=st.data())
@settings(max_examples=25, deadline=None)
def test_one_user_never_reaches_another(backend, poison, lengths, seed, data):
    """Values and gradients of all others stay the same to the bit, states included."""
    inputs = make(sum(lengths), len(lengths), seed)
    poisoned = {name: value.clone() for name, value in inputs.items()}
    victim = data.draw(st.sampled_from([s for s, n in enumerate(lengths) if n]))
    for name in data.draw(st.sets(st.sampled_from(PER_TOKEN), min_size=1)):
        poisoned[name][data.draw(st.sampled_from(spans(lengths)[victim]))] = poison
    others = [t for s, span in enumerate(spans(lengths)) for t in span if s != victim]
    kept = [s for s in range(len(lengths)) if s != victim]
    for clean, dirty in zip(
        everything(inputs, lengths, backend), everything(poisoned, lengths, backend), strict=True
    ):
        for name, value in clean.items():
            rows = others if value.shape[0] == sum(lengths) and name not in STATES else kept
            assert torch.equal(value[rows], dirty[name][rows]), name


STATES = ("state", "tails", "dstate", "dtails")


def everything(inputs, lengths, backend):
    leaves = {
        name: value.clone().requires_grad_(value.is_floating_point())
        for name, value in inputs.items()
    }
    outputs, states = run(leaves, lengths, backend)
    sum(value.sum() for value in (outputs | states).values()).backward()
    gradients = {f"d{name}": leaves[name].grad for name in (*PER_TOKEN, "state", "tails")}
    detached = {name: value.detach() for name, value in (outputs | states).items()}
    return detached, gradients


@backends
@given(length=st.integers(1, 90), seed=SEEDS, data=st.data())
@settings(max_examples=25, deadline=None)
def test_streaming_is_the_parallel_form(backend, compare, length, seed, data):
    """Two users arrive in pieces, empty pieces among them, each with its own state and position."""
    lengths = [length, data.draw(st.integers(0, 40))]
    inputs = make(sum(lengths), 2, seed)
    outputs, states = run(inputs, lengths, backend)
    cuts = [
        [0, *sorted(data.draw(st.lists(st.integers(0, n), min_size=3, max_size=3))), n]
        for n in lengths
    ]
    at, pieces = dict(inputs), []
    for piece in range(4):
        parts = [range(cut[piece], cut[piece + 1]) for cut in cuts]
        tokens = [*parts[0], *(lengths[0] + t for t in parts[1])]
        now = take(inputs, tokens, [0, 1]) | {n: at[n] for n in ("state", "tails", "offset")}
        sizes = [len(part) for part in parts]
        got, carried = run(now, sizes, backend)
        pieces.append((tokens, got))
        at = carried | {"offset": at["offset"] + torch.tensor(sizes)}
    compare({name: at[name] for name in states}, states, 1e-12)
    for tokens, got in pieces:
        compare(got, {name: value[tokens] for name, value in outputs.items()}, 1e-12)


@backends
def test_same_bits_twice(backend):
    lengths = [5, 1, 37, 70]
    inputs = make(sum(lengths), len(lengths), 0)
    for first, second in zip(
        everything(inputs, lengths, backend), everything(inputs, lengths, backend), strict=True
    ):
        assert all(torch.equal(value, second[name]) for name, value in first.items())
