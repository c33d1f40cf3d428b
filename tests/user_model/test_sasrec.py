import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from user_model.attention import AttentionPlan, CausalSelfAttention
from user_model.sasrec import SASRec, SASRecConfig

LENGTHS = [1, 5, 2, 33, 3, 5, 17]


def packed(dim, lengths=LENGTHS):
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0)
    return torch.randn(int(cu_seqlens[-1]), dim, dtype=torch.float64), cu_seqlens


def model(**kwargs):
    return SASRec(SASRecConfig(**({"dim": 32, "heads": 2} | kwargs))).double().eval()


def test_attention_is_the_textbooks():
    attention = CausalSelfAttention(32, 2).double()
    h, cu_seqlens = packed(32)
    got = attention(h, AttentionPlan.build(cu_seqlens))
    expected = []
    for part in h.split(LENGTHS):
        q, k, v = attention.input(part).view(len(part), 3, 2, 16).permute(1, 2, 0, 3)
        future = torch.ones(len(part), len(part), dtype=torch.bool).triu(1)
        weights = (q @ k.mT / 4.0).masked_fill(future, float("-inf")).softmax(-1)
        expected.append((weights @ v).transpose(0, 1).flatten(1))
    wanted = attention.output(torch.cat(expected))
    error = (got - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
    assert error.item() < 1e-12


@pytest.mark.parametrize("lengths", [[1], [0, 3, 0], [50] * 3, [2, 3, 4, 5, 8, 9], []])
def test_the_plan_holds_every_token_once(lengths):
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0)
    plan = AttentionPlan.build(cu_seqlens)
    tokens = torch.arange(int(cu_seqlens[-1]))
    assert torch.equal(plan.gather[plan.scatter], tokens)
    assert sum(rows * length for rows, length in plan.groups) == len(plan.gather)
    assert plan.longest == max(lengths, default=0)


def test_packed_is_alone():
    sasrec = model()
    vectors, cu_seqlens = packed(32)
    alone = [sasrec(part, torch.tensor([0, len(part)])) for part in vectors.split(LENGTHS)]
    torch.testing.assert_close(
        sasrec(vectors, cu_seqlens), torch.cat(alone), rtol=1e-11, atol=1e-12
    )


def test_the_future_and_other_users_are_not_seen():
    sasrec = model()
    vectors, cu_seqlens = packed(32)
    before = sasrec(vectors, cu_seqlens)
    changed = vectors.clone()
    changed[20] += 1.0  # inside the sequence of 33 that begins at 8 and ends at 41
    after = sasrec(changed, cu_seqlens)
    same = (after - before).abs().sum(1) < 1e-11
    assert same[:20].all()
    assert same[41:].all()
    assert not same[20:41].any()


def test_positions_tell_order_apart():
    sasrec = model()
    vectors, _ = packed(32, [3])
    forward = sasrec(vectors, torch.tensor([0, 3]))
    swapped = sasrec(vectors[[1, 0, 2]], torch.tensor([0, 3]))
    assert (forward[2] - swapped[2]).abs().max().item() > 1e-6


def test_every_weight_has_a_gradient():
    sasrec = model()
    vectors, cu_seqlens = packed(32)
    functional.normalize(sasrec(vectors, cu_seqlens)).pow(3).sum().backward()
    assert [n for n, p in sasrec.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_history_longer_than_the_positions_raises():
    with pytest.raises(ValueError, match=r"has 33 items, expected at most max_positions = 32"):
        model(max_positions=32)(*packed(32))


def test_heads_divide_the_width():
    with pytest.raises(ValidationError, match="heads: got 3, expected a divisor of dim 32"):
        SASRecConfig(dim=32, heads=3)
