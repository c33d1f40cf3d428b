"""The Mamba-2 baseline against its equations, a token at a time, and transformers' mixer."""

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from user_model.mamba2rec import Mamba2Mixer, Mamba2Rec, Mamba2RecConfig

LENGTHS = [1, 5, 2, 33, 3, 5, 17]


def config(**kwargs):
    fields = {"dim": 16, "heads": 2, "state_dim": 8, "dropout": 0.0}
    return Mamba2RecConfig(**(fields | kwargs))


def batch():
    cu_seqlens = torch.tensor([0, *LENGTHS]).cumsum(0)
    return torch.randn(int(cu_seqlens[-1]), 16, dtype=torch.float64), cu_seqlens


def rms_norm(x, weight):
    return x / (x.square().mean() + 1e-6).sqrt() * weight


def mixed(mixer, h_Ld):
    """Mamba-2 of one history: convolve, select, remember, read, gate, a token at a time."""
    E, K, V = mixer.split
    N, P = (K - E) // 2, E // V
    before = [torch.zeros(K, dtype=h_Ld.dtype)] * 3
    state = torch.zeros(V, N, P, dtype=h_Ld.dtype)
    rows = []
    for h in h_Ld:
        gate, channels, dt = (mixer.input.weight @ h).split([E, K, V])
        before = [*before, channels]
        taps = mixer.conv.weight.unbind(1)
        convolved = sum(tap * x for tap, x in zip(taps, before[-4:], strict=True))
        x, B, C = functional.silu(convolved + mixer.conv.bias).split([E, N, N])
        s = functional.softplus(dt + mixer.scan.dt_bias)
        heads = []
        for v in range(V):
            mine = x[v * P : (v + 1) * P]
            decayed = torch.exp(s[v] * mixer.scan.decay_rates[v]) * state[v]
            new = decayed + s[v] * torch.outer(B, mine)
            state = torch.cat([state[:v], new[None], state[v + 1 :]])
            heads.append(new.T @ C + mixer.scan.D[v] * mine)
        gated = rms_norm(torch.cat(heads) * functional.silu(gate), mixer.norm_weight)
        rows.append(mixer.output.weight @ gated)
    return torch.stack(rows)


def one_history(model, vectors_Ld):
    h = model.input_norm(vectors_Ld)
    for block in model.blocks:
        y = mixed(block.mixer, h)
        h = block.norm(h + y if len(model.blocks) > 1 else y)
        first, _, _, second = block.ffn
        h = block.ffn_norm(h + second(functional.gelu(first(h))))
    return h


def rms_ratio(got, wanted):
    got, wanted = got.detach(), wanted.detach()
    return float((got - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (2, 2)])
def test_outputs_and_gradients_are_those_of_the_equations(layers, heads, backend):
    model = Mamba2Rec(config(layers=layers, heads=heads, backend=backend)).double()
    vectors, cu_seqlens = batch()
    vectors.requires_grad_()
    weights = torch.randn_like(vectors)
    named = {"vectors": vectors, **dict(model.named_parameters())}
    found = model(vectors, cu_seqlens)
    expected = torch.cat([one_history(model, part) for part in vectors.split(LENGTHS)])
    assert rms_ratio(found, expected) < 1e-12
    got, want = (
        torch.autograd.grad((outputs * weights).sum(), list(named.values()))
        for outputs in (found, expected)
    )
    for name, mine, theirs in zip(named, got, want, strict=True):
        # The decay rates are float32, and so is the last step to the gradient of A_log.
        assert rms_ratio(mine, theirs) < (1e-6 if name.endswith("A_log") else 1e-12), name


def test_the_mixer_is_transformers_mamba2():
    modeling = pytest.importorskip("transformers.models.mamba2.modeling_mamba2")
    from transformers import Mamba2Config

    from user_model import ops

    theirs = modeling.Mamba2Mixer(
        Mamba2Config(
            hidden_size=16, expand=2, num_heads=2, head_dim=16, state_size=8, n_groups=1,
            conv_kernel=4, use_conv_bias=True, use_bias=False, chunk_size=8,
            layer_norm_epsilon=1e-6, hidden_act="silu",
        ),
        layer_idx=0,
    ).eval()  # fmt: skip
    ours = Mamba2Mixer(config())
    theirs.in_proj.weight.data = ours.input.weight.data
    theirs.conv1d.weight.data = ours.conv.weight.data[:, None]
    theirs.conv1d.bias.data = ours.conv.bias.data
    theirs.A_log.data, theirs.D.data = ours.scan.A_log.data, ours.scan.D.data
    theirs.dt_bias.data = ours.scan.dt_bias.data
    theirs.norm.weight.data, theirs.out_proj.weight.data = ours.norm_weight.data, ours.output.weight
    h_SLd = torch.randn(3, 19, 16)
    cu_seqlens = torch.arange(4) * 19
    found = ours(h_SLd.flatten(0, 1), cu_seqlens, ops.plan(cu_seqlens))
    assert rms_ratio(found, theirs(h_SLd).flatten(0, 1)) < 1e-5


def test_heads_divide_the_inner_width():
    with pytest.raises(ValidationError, match="heads: got 3, expected a divisor of expand x dim"):
        config(heads=3)
