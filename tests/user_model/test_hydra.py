"""Hydra against the paper's equations written out head by head, token by token, in float64."""

import math
from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from user_model.hydra import Hydra, HydraConfig

LENGTHS = [1, 5, 2, 33, 3]
HEADS = pytest.mark.parametrize("head", ["full", "lean", "mamba1", "lean, history_mean"])


def packed(dim, lengths=LENGTHS, dtype=torch.float64):
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0)
    return torch.randn(int(cu_seqlens[-1]), dim, dtype=dtype), cu_seqlens


def model(**kwargs):
    kwargs["head"], *switches = kwargs.get("head", "full").split(", ")
    kwargs |= dict.fromkeys(switches, True)
    built = Hydra(HydraConfig(**({"dim": 32, "layers": 2, "heads": 3} | kwargs))).double().eval()
    for parameter in built.parameters():
        # Away from the ones and zeros of the initialisation, so that each of them counts.
        torch.nn.init.normal_(parameter, std=0.3)
    return built


def rms(x, weight):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def rotate(z_P, position):
    pairs = z_P.view(-1, 2)
    width = len(z_P)
    angle = position * 10000.0 ** (-torch.arange(0, width, 2, dtype=z_P.dtype) / width)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack(
        [pairs[:, 0] * cos - pairs[:, 1] * sin, pairs[:, 0] * sin + pairs[:, 1] * cos], -1
    ).flatten()


def mamba2(heads, v, x_LP, N, times_L):
    """One Mamba-2 head over one sequence; `lean` heads have neither gate, norm nor projection."""
    L, P = x_LP.shape
    full = hasattr(heads, "out_projection")
    projected = x_LP @ heads.in_projection.weight[v]
    if full:
        gate, xBC, dt = projected.split([P, P + 2 * N, 1], -1)
    else:
        BC, dt = projected.split([2 * N, 1], -1)
        xBC = torch.cat([x_LP, BC], -1)
    channels = slice(v * (P + 2 * N), (v + 1) * (P + 2 * N))
    weight, bias = heads.conv.weight[channels], heads.conv.bias[channels]
    before = torch.cat([xBC.new_zeros(3, P + 2 * N), xBC])
    xBC = functional.silu(
        torch.stack([(before[t : t + 4].T * weight).sum(1) for t in range(L)]) + bias
    )
    x, B, C = xBC.split([P, N, N], -1)
    dt = dt[:, 0] + heads.scan.dt_bias[v]
    if times_L is not None:
        gaps = [0, *(max(0, b - a) for a, b in pairwise(times_L.tolist()))]
        logs = [math.log(1 + gap) for gap in gaps]
        dt = dt + heads.gap_weight[v] * torch.tensor(logs, dtype=dt.dtype)
    step = functional.softplus(dt)
    state, y = x.new_zeros(N, P), []
    for t in range(L):
        decay = torch.exp(-step[t] * heads.scan.A_log[v].float().exp())
        state = decay * state + step[t] * B[t][:, None] * x[t]
        y.append(C[t] @ state + heads.scan.D[v] * x[t])
    y_LP = torch.stack(y)
    if full:
        weight = heads.norm_weight.view(-1, P)[v]
        y_LP = rms(y_LP * functional.silu(gate), weight) @ heads.out_projection.weight[v]
    return y_LP


def mamba1(heads, v, x_LP, N, times_L):
    """One Mamba-1 head over one sequence: a step and a decay of each channel."""
    assert times_L is None
    L, P = x_LP.shape
    gate, x = (x_LP @ heads.in_projection.weight[v]).split(P, -1)
    channels = slice(v * P, (v + 1) * P)
    before = torch.cat([x.new_zeros(3, P), x])
    taps, bias = heads.conv.weight[channels].T, heads.conv.bias[channels]
    x = functional.silu(torch.stack([(before[t : t + 4] * taps).sum(0) for t in range(L)]) + bias)
    rank = heads.step_projection.weight.shape[1]
    low, B, C = (x @ heads.selection.weight[v]).split([rank, N, N], -1)
    step = functional.softplus(low @ heads.step_projection.weight[v] + heads.dt_bias[v])
    state, y = x.new_zeros(P, N), []
    for t in range(L):
        decay = torch.exp(-step[t][:, None] * heads.A_log[v].T.float().exp())
        state = decay * state + (step[t] * x[t])[:, None] * B[t]
        y.append(state @ C[t] + heads.D[v] * x[t])
    return (torch.stack(y) * functional.silu(gate)) @ heads.out_projection.weight[v]


def paper(hydra, vectors_Ld, times_L=None):
    """Hydra over one sequence: X, Z, the heads, Y * Z, the gated feed-forward."""
    config = hydra.config
    V, P, N = config.heads, config.head_width, config.state_width
    head = mamba1 if config.head == "mamba1" else mamba2
    h = rms(vectors_Ld, hydra.input_norm.weight)
    if times_L is not None:
        gaps = [0, *(max(0, b - a) for a, b in pairwise(times_L.tolist()))]
        h = h + torch.stack([hydra.gap_vectors[(1 + gap).bit_length() - 1] for gap in gaps])
    for block in hydra.blocks:
        normed = rms(h, block.norm.weight)
        W_X, *W_Z = block.input.weight.split(V * P)
        X = functional.silu(normed @ W_X.T)
        Y = torch.cat(
            [head(block.interaction, v, X[:, v * P : (v + 1) * P], N, times_L) for v in range(V)],
            -1,
        )
        if config.interaction:
            Z = functional.silu(normed @ W_Z[0].T)
            places = range(len(Z)) if config.rope else [0] * len(Z)
            Y = Y * torch.stack(
                [
                    torch.cat([rotate(z, t) for z in row.view(V, P)])
                    for t, row in zip(places, Z, strict=True)
                ]
            )
        h = h + Y @ block.output.weight.T
        if config.history_mean:
            means = torch.stack([normed[: t + 1].mean(0) for t in range(len(normed))])
            h = h + means @ block.history_mean.linear.weight.T
        gate, up = (rms(h, block.ffn_norm.weight) @ block.ffn.up.weight.T).chunk(2, -1)
        h = h + (functional.silu(gate) * up) @ block.ffn.down.weight.T
    return rms(h, hydra.norm.weight)


def times_of(count):
    """Unix seconds: gaps of nothing, seconds, days and years, a few of them backwards."""
    gaps = torch.tensor([0, 1, 59, 3600, 86400, -7, 604800, 40_000_000])
    return 1_300_000_000 + gaps.repeat(count // 8 + 1)[:count].cumsum(0)


@pytest.mark.parametrize(
    ("head", "timed", "changed"),
    [
        *((head, timed, {}) for head in ("full", "lean") for timed in (False, True)),
        *((head, False, {"rope": False}) for head in ("full", "lean", "mamba1")),
        *((head, False, {"interaction": False}) for head in ("full", "lean", "mamba1")),
        *((head, True, {"history_mean": True}) for head in ("full", "lean")),
        ("mamba1", False, {"history_mean": True}),
        ("mamba1", False, {}),
        ("mamba1", False, {"head_dim": 18}),  # steps of rank 2
    ],
)
def test_it_is_the_papers_equations(head, timed, changed):
    shape = {"heads": 2} if "head_dim" in changed else {}
    hydra = model(
        **{"dim": 32, "head": head, "state_dim": 6, "time_gaps": timed}, **shape, **changed
    )
    for name, parameter in hydra.named_parameters():
        # A = -exp(A_log) is float32 by rule; a value that float32 holds makes the two comparable.
        if name.endswith("A_log"):
            parameter.data.zero_()
    vectors, cu_seqlens = packed(32)
    times = times_of(len(vectors)) if timed else None
    parts = zip(
        vectors.split(LENGTHS), times.split(LENGTHS) if timed else [None] * len(LENGTHS),
        strict=True,
    )  # fmt: skip
    expected = torch.cat([paper(hydra, *part) for part in parts])
    got = hydra(vectors, cu_seqlens, times)
    error = (got - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert error.item() < 1e-12
    if not timed:
        return
    wanted = torch.autograd.grad(expected.square().sum(), hydra.parameters(), retain_graph=True)
    found = torch.autograd.grad(got.square().sum(), hydra.parameters())
    for (name, _), a, b in zip(hydra.named_parameters(), found, wanted, strict=True):
        # -exp(A_log) is taken in float32, and so is its gradient.
        assert (a - b).norm() <= (1e-6 if name.endswith("A_log") else 1e-10) * b.norm(), name


@HEADS
def test_packed_is_alone(head):
    hydra = model(head=head)
    vectors, cu_seqlens = packed(32)
    alone = [hydra(part, torch.tensor([0, len(part)])) for part in vectors.split(LENGTHS)]
    torch.testing.assert_close(hydra(vectors, cu_seqlens), torch.cat(alone), rtol=1e-11, atol=1e-12)


@HEADS
def test_the_future_is_not_seen(head):
    hydra = model(head=head)
    vectors, cu_seqlens = packed(32)
    before = hydra(vectors, cu_seqlens)
    changed = vectors.clone()
    changed[20] += 1.0  # inside the sequence of 33 that begins at 8 and ends at 41
    same = (hydra(changed, cu_seqlens) - before).abs().sum(1) < 1e-10
    assert same[:20].all()
    assert same[41:].all()
    assert not same[20:41].any()


@HEADS
def test_what_is_not_a_number_stays_with_its_user(head):
    hydra = model(head=head)
    vectors, cu_seqlens = packed(32)
    expected = hydra(vectors, cu_seqlens)
    vectors[8:41] = float("nan")
    got = hydra(vectors, cu_seqlens)
    assert got[8:41].isnan().all()
    others = torch.tensor([*range(8), *range(41, 44)])
    torch.testing.assert_close(got[others], expected[others], rtol=1e-11, atol=1e-12)


@HEADS
def test_every_weight_has_a_gradient(head):
    hydra = model(head=head)
    vectors, cu_seqlens = packed(32)
    hydra(vectors, cu_seqlens).square().sum().backward()
    without = [n for n, p in hydra.named_parameters() if p.grad is None or not p.grad.any()]
    # The final norm's gradient included: squares of its output depend on its weight.
    assert without == []


def test_initialisation_is_mamba_2s():
    scan = Hydra(HydraConfig(dim=64, layers=1)).blocks[0].interaction.scan
    dt = functional.softplus(scan.dt_bias)
    assert bool(((dt >= 1e-3 * 0.999) & (dt <= 1e-1 * 1.001)).all())
    assert bool(((scan.A_log >= 0.0) & (scan.A_log.exp() <= 16.0)).all())
    assert torch.equal(scan.D, torch.ones(4))


def test_the_mean_begins_as_none():
    plain, meant = (Hydra(HydraConfig(dim=16, history_mean=on)).eval() for on in (False, True))
    absent, unexpected = meant.load_state_dict(plain.state_dict(), strict=False)
    assert absent == [f"blocks.{i}.history_mean.linear.weight" for i in range(2)]
    assert unexpected == []
    vectors, cu_seqlens = packed(16, dtype=torch.float32)
    assert torch.equal(meant(vectors, cu_seqlens), plain(vectors, cu_seqlens))


def test_heads_must_be_cheaper_than_the_model_and_even():
    assert HydraConfig(dim=64, heads=15).head_width == 16
    with pytest.raises(ValidationError, match=r"heads, head_dim: got 16 x 16\^2 = 4096"):
        HydraConfig(dim=64, heads=16)
    with pytest.raises(ValidationError, match="head_dim: got 5"):
        HydraConfig(dim=20)


def test_mamba_1_heads_have_no_time_channel():
    with pytest.raises(ValidationError, match="time_gaps: got true with head: mamba1"):
        HydraConfig(head="mamba1", time_gaps=True)


def test_input_that_does_not_fit_raises():
    hydra = Hydra(HydraConfig(dim=16))
    with pytest.raises(ValueError, match=r"vectors: got shape \(4, 8\), expected \[tokens, 16\]"):
        hydra(torch.zeros(4, 8), torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="cu_seqlens: ends at 3, expected the 4 tokens"):
        hydra(torch.zeros(4, 16), torch.tensor([0, 3]))
    with pytest.raises(ValueError, match=r"cu_seqlens: got torch.int32"):
        hydra(torch.zeros(4, 16), torch.tensor([0, 4], dtype=torch.int32))


def test_an_unknown_backend_raises():
    hydra = Hydra(HydraConfig(dim=16, backend="abacus"))
    with pytest.raises(ValueError, match="abacus"):
        hydra(torch.zeros(4, 16), torch.tensor([0, 4]))
