from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional

from user_model import (
    Hydra,
    HydraConfig,
    ItemTable,
    ItemTableConfig,
    Recommender,
    TrainingConfig,
    train,
)
from user_model.text_channel import decayed_means
from user_model.whitening import whitened_by_domain

STARTS = torch.tensor([0, 40, 60])


@pytest.fixture
def texts():
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(60, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    return mixed + torch.tensor([5.0, 0, 0, 0, 0, -3.0])


@pytest.fixture
def model(texts):
    torch.manual_seed(0)
    table = ItemTable.build(ItemTableConfig(text_channel=True), 60, 16, texts, STARTS)
    return Recommender(table, Hydra(HydraConfig(dim=16, layers=1))).eval()


def means_by_the_definition(rows, seams, decay):
    expected = torch.zeros_like(rows)
    for first, end in pairwise(seams):
        for last in range(first, end):
            weights = decay ** torch.arange(last - first, -1, -1, dtype=rows.dtype)
            expected[last] = weights @ rows[first : last + 1] / weights.sum()
    return expected


@pytest.mark.parametrize("decay", [0.8, 0.3, 1.0])
@pytest.mark.parametrize("lengths", [[1], [3, 1, 2], [64], [63, 65, 1, 130], [300], [5, 0, 7]])
def test_means_are_those_of_the_definition(lengths, decay):
    seams = np.concatenate([[0], np.cumsum(lengths)])
    rows = torch.randn(seams[-1], 5, dtype=torch.float64)
    found = decayed_means(rows, torch.from_numpy(seams), decay)
    torch.testing.assert_close(found, means_by_the_definition(rows, seams, decay))


def test_each_domain_is_whitened_by_itself(texts):
    white = whitened_by_domain(texts, STARTS)
    for first, end in pairwise(STARTS.tolist()):
        part = white[first:end].double()
        torch.testing.assert_close(part.mean(0), torch.zeros(6).double(), rtol=0, atol=1e-5)
        torch.testing.assert_close(
            part.T @ part / len(part), torch.eye(6).double(), rtol=0, atol=1e-4
        )


def test_a_domain_with_fewer_directions_than_columns_has_zeros(texts):
    white = whitened_by_domain(texts, torch.tensor([0, 4, 60]))
    assert white.shape == (60, 6)
    assert white[:4, 3:].abs().max() == 0.0
    assert white[:4, :3].abs().min() > 0.0


def test_a_score_is_the_cosine_and_the_weighted_text(model, texts):
    with torch.no_grad():
        model.items.channel.weights.copy_(torch.tensor([0.5, 2.0]))
    history, seams = torch.tensor([3, 7, 3, 50, 41]), torch.tensor([0, 3, 5])
    scores = model.user_vectors(history, seams) @ model.item_vectors(torch.arange(60)).T

    learned = functional.normalize(model.sequence_model(model.items(history), seams), dim=1)
    cosines = learned @ functional.normalize(model.items(torch.arange(60)), dim=1).T
    white = functional.normalize(whitened_by_domain(texts, STARTS), dim=1)
    means = means_by_the_definition(white[history], seams.tolist(), 0.8)
    weights = torch.tensor([0.5, 0.5, 0.5, 2.0, 2.0])[:, None]
    torch.testing.assert_close(scores, cosines + weights * (means @ white.T))


def test_ranking_may_have_a_shorter_memory_of_texts_than_training(texts):
    config = ItemTableConfig(text_channel=True, text_ranking_decay=0.3)
    table = ItemTable.build(config, 60, 16, texts, STARTS)
    history, seams = torch.tensor([3, 7, 3, 50, 41]), torch.tensor([0, 3, 5])
    white = functional.normalize(whitened_by_domain(texts, STARTS), dim=1)
    for training, decay in ((True, 0.8), (False, 0.3)):
        expected = 2.0 * means_by_the_definition(white[history], seams.tolist(), decay)
        table.channel.train(training)
        torch.testing.assert_close(table.channel.histories(history, seams).detach(), expected)


def test_the_loss_moves_the_weights_by_its_slope(model):
    history, seams = torch.tensor([3, 7, 3, 50, 41]), torch.tensor([0, 3, 5])
    weights = model.items.channel.weights

    def loss():
        scores = model.user_vectors(history, seams) @ model.item_vectors(torch.arange(60)).T
        return functional.cross_entropy(scores / 0.1, torch.tensor([7, 3, 9, 41, 55]))

    loss().backward()
    for domain, slope in enumerate(weights.grad.tolist()):
        ends = []
        for step in (1e-2, -1e-2):
            with torch.no_grad():
                weights[domain] += step
                ends.append(float(loss()))
                weights[domain] -= step
        assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(slope, rel=2e-2, abs=1e-3)


@pytest.mark.parametrize("block_tokens", [1, 4, 100])
def test_histories_are_encoded_as_they_are_trained(model, block_tokens):
    offsets, items = np.array([0, 3, 3, 5]), np.array([3, 7, 3, 50, 41])
    users = model.encode_histories(offsets, items, block_tokens=block_tokens)
    assert users.shape == (3, model.width) == (3, 22)
    assert users[1].abs().max() == 0.0
    whole = model.user_vectors(torch.from_numpy(items), torch.tensor([0, 3, 5]))
    torch.testing.assert_close(users[[0, 2]], whole[[2, 4]].detach(), rtol=1e-5, atol=1e-6)


class Histories:
    """People who take the neighbours, by text, of what they took last; ids tell nothing new."""

    def __init__(self, texts, n_users):
        rng = np.random.default_rng(0)
        near = (texts @ texts.T - 2 * torch.eye(len(texts))).topk(3).indices.numpy()
        rows = []
        for _ in range(n_users):
            row = [rng.integers(len(texts))]
            for _ in range(5):
                row.append(rng.choice([i for i in near[row[-1]] if i not in row] or near[row[-1]]))
            rows.append(row)
        self.items = np.array(rows, dtype=np.int64).ravel()
        self.offsets = np.arange(n_users + 1, dtype=np.int64) * 6


def hits_after_training(texts, *, channel):
    torch.manual_seed(0)
    table = ItemTable.build(ItemTableConfig(text_channel=channel), 400, 8, texts)
    model = Recommender(table, Hydra(HydraConfig(dim=8, layers=1, dropout=0.0)))
    training = TrainingConfig(epochs=4, batch_tokens=256, negatives=64, max_history=10)
    train(model, Histories(texts, 60), np.array([0, 400]), training, seed=0)

    rows = Histories(texts, 300).items.reshape(-1, 6)
    users = model.encode_histories(np.arange(len(rows) + 1) * 5, rows[:, :5].ravel())
    with torch.no_grad():
        scores = users @ model.eval().item_vectors(torch.arange(400)).T
    scores.scatter_(1, torch.from_numpy(rows[:, :5]), -torch.inf)
    ranks = (scores > scores.gather(1, torch.from_numpy(rows[:, 5:]))).sum(1)
    return float((ranks < 10).float().mean()), table.channel


def test_where_text_tells_the_next_item_few_people_are_enough():
    texts = functional.normalize(torch.randn(400, 32, generator=torch.Generator().manual_seed(1)))
    without, _ = hits_after_training(texts, channel=False)
    with_channel, channel = hits_after_training(texts, channel=True)
    assert with_channel > without + 0.1
    assert float(channel.weights.detach()) != 2.0


def test_without_text_it_is_refused():
    with pytest.raises(ValueError, match="text_channel: the item table is to use text vectors"):
        ItemTable.build(ItemTableConfig(text=False, text_channel=True), 5, 4, None)
