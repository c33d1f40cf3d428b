"""The published SASRec against its equations, written out a history and a position at a time."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from user_model import (
    ItemTable,
    PublishedSASRec,
    PublishedSASRecConfig,
    PublishedSASRecTraining,
    Recommender,
    train,
)
from user_model.batching import Batches
from user_model.negatives import NegativeSampler

LENGTHS = [1, 5, 2, 33, 3, 5, 17]


def model(**kwargs):
    fields = {"dim": 16, "heads": 2, "max_positions": 40, "dropout": 0.0}
    return PublishedSASRec(PublishedSASRecConfig(**(fields | kwargs)))


def norm(x_Ld, layer):
    centred = x_Ld - x_Ld.mean(-1, keepdim=True)
    deviation = (centred.square().mean(-1, keepdim=True) + 1e-8).sqrt()
    return centred / deviation * layer.weight + layer.bias


def attend(x_Ld, attention):
    """Softmax over the items up to each one, a head and a position at a time."""
    width = x_Ld.shape[1] // attention.heads
    parts = attention.input.weight.chunk(3), attention.input.bias.chunk(3)
    q, k, v = (x_Ld @ weight.T + bias for weight, bias in zip(*parts, strict=True))
    rows = []
    for t in range(len(x_Ld)):
        heads = []
        for h in range(attention.heads):
            mine = slice(h * width, (h + 1) * width)
            scores = torch.stack([q[t, mine] @ k[s, mine] for s in range(t + 1)])
            weights = torch.softmax(scores / math.sqrt(width), 0)
            heads.append(sum(weights[s] * v[s, mine] for s in range(t + 1)))
        rows.append(torch.cat(heads))
    return torch.stack(rows)


def one_history(sasrec, vectors_Ld):
    """The published equations for one history, without dropout."""
    length, dim = vectors_Ld.shape
    places = sasrec.positions[sasrec.config.max_positions - length :]
    x = vectors_Ld * math.sqrt(dim) + places
    for block in sasrec.blocks:
        x = x + attend(norm(x, block.norm), block.attention)
        first, _, _, second = block.ffn
        hidden = norm(x, block.ffn_norm) @ first.weight.T + first.bias
        x = x + hidden.clamp_min(0.0) @ second.weight.T + second.bias
    return norm(x, sasrec.norm)


def rms_ratio(got, wanted):
    got, wanted = got.detach(), wanted.detach()
    return float((got - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())


def test_outputs_and_gradients_are_those_of_the_equations():
    sasrec = model().double()
    cu_seqlens = torch.tensor([0, *LENGTHS]).cumsum(0)
    vectors = torch.randn(int(cu_seqlens[-1]), 16, dtype=torch.float64, requires_grad=True)
    weights = torch.randn_like(vectors)
    named = {"vectors": vectors, **dict(sasrec.named_parameters())}
    found = sasrec(vectors, cu_seqlens)
    expected = torch.cat([one_history(sasrec, part) for part in vectors.split(LENGTHS)])
    assert rms_ratio(found, expected) < 1e-12
    got, want = (
        torch.autograd.grad((outputs * weights).sum(), list(named.values()))
        for outputs in (found, expected)
    )
    for name, mine, theirs in zip(named, got, want, strict=True):
        if name.endswith("attention.input.bias"):  # the keys' bias cancels in the softmax
            mine, theirs = (torch.cat([g[:16], g[32:]]) for g in (mine, theirs))
        assert rms_ratio(mine, theirs) < 1e-12, name


def test_weights_begin_as_published():
    sasrec = model(dim=64, heads=1)
    limit = math.sqrt(6 / (64 + 64))
    for name, parameter in sasrec.blocks.named_parameters():
        if parameter.ndim == 2:
            assert limit > parameter.abs().max() > 0.99 * limit, name
            assert parameter.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.03)
        else:
            assert torch.equal(parameter, torch.full_like(parameter, not name.endswith("bias")))
    items = ItemTable(1000, 64, id_std=None)
    assert items.ids.abs().max().item() == pytest.approx(math.sqrt(6 / 1064), rel=0.01)


def plain_loss(sasrec, ids, histories, targets, negatives):
    """-log sigmoid(positive) - log(1 - sigmoid(negative)), the mean over all positions."""
    terms = []
    for history, wanted, drawn in zip(histories, targets, negatives, strict=True):
        users = one_history(sasrec, ids[history])
        for user, positive, negative in zip(users, wanted, drawn, strict=True):
            terms.append(-torch.log(torch.sigmoid(user @ ids[positive])))
            if positive != negative:
                terms[-1] = terms[-1] - torch.log(1 - torch.sigmoid(user @ ids[negative]))
    return torch.stack(terms).mean()


def test_the_loss_of_a_step_is_that_of_the_paper(circles, domain_starts):
    """The first step's loss, from the batch and the draws of the sampler alone."""
    recommender = Recommender(ItemTable(50, 16, id_std=None), model(), normalise=False)
    config = PublishedSASRecTraining(epochs=1, batch_tokens=256)
    batches = Batches(
        circles, domain_starts, batch_tokens=256, max_history=config.max_history, seed=3,
        min_epoch_steps=config.min_epoch_steps,
    )  # fmt: skip
    batch = batches.epoch(0)[0]
    sampler = NegativeSampler.build(
        batches.items, domain_starts, count=1, tile=1, popularity_share=0.0, seed=3
    )
    # A tile of one position: its draw stands where the position stands in the order of domains.
    drawn = np.empty(batch.n_tokens, dtype=np.int64)
    drawn[np.argsort(batch.domains, kind="stable")] = sampler.draw(batch, 0, 0)[:, 0]
    lows, highs = domain_starts[batch.domains], domain_starts[batch.domains + 1]
    assert ((drawn >= lows) & (drawn < highs)).all()
    assert (drawn == batch.targets).any(), "a draw of the target itself is among them"
    cuts = batch.cu_seqlens[1:-1]
    parts = (np.split(array, cuts) for array in (batch.items, batch.targets, drawn))
    ids = recommender.items.ids.detach()
    expected = plain_loss(recommender.sequence_model, ids, *parts).item()
    losses = []
    train(
        recommender, circles, domain_starts, config, seed=3,
        on_step=lambda record: losses.append(record.loss),
    )  # fmt: skip
    assert losses[0] == pytest.approx(expected, rel=1e-6)


def test_scores_are_inner_products(circles):
    recommender = Recommender(ItemTable(50, 16, id_std=None), model(), normalise=False)
    items = torch.arange(50)
    assert torch.equal(recommender.item_vectors(items), recommender.items.ids)
    users = recommender.encode_histories(circles.offsets[:3], circles.items)
    history = torch.from_numpy(circles.items[: circles.offsets[1]])
    alone = one_history(recommender.sequence_model, recommender.items.ids[history])
    torch.testing.assert_close(users[0], alone[-1], rtol=1e-5, atol=1e-6)


def test_it_learns_with_its_published_settings(circles, domain_starts):
    recommender = Recommender(ItemTable(50, 16, id_std=None), model(dropout=0.2), normalise=False)
    config = PublishedSASRecTraining(epochs=60, batch_tokens=128, lr=5e-3)
    result = train(recommender, circles, domain_starts, config, seed=0)
    assert {record.lr for record in result.history} == {5e-3}
    offsets, items = np.arange(0, 121, 4), (np.arange(30)[:, None] + np.arange(4)) % 30
    users = recommender.encode_histories(offsets, items.ravel())
    scores = functional.linear(users, recommender.item_vectors(torch.arange(30)))
    following = torch.from_numpy((items[:, -1] + 1) % 30)
    assert (scores.argmax(1) == following).float().mean() > 0.8


def test_a_history_longer_than_the_positions_raises():
    with pytest.raises(ValueError, match=r"has 33 items, expected at most max_positions = 32"):
        model(max_positions=32)(torch.randn(33, 16), torch.tensor([0, 33]))
