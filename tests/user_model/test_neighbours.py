"""Columns of neighbours rank as item-kNN does, and training neither sees nor learns them."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from user_model import Hydra, HydraConfig, ItemTable, ItemTableConfig, Recommender, train
from user_model.neighbours import _block_power, _leading, neighbour_vectors
from user_model.training_config import TrainingConfig

STARTS = np.array([0, 30, 50])


@dataclass(frozen=True)
class Histories:
    offsets: np.ndarray
    items: np.ndarray


@pytest.fixture(scope="module")
def histories():
    """Histories of one domain each, of near items more often than of far ones."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(200):
        domain = rng.integers(2)
        at, size = STARTS[domain], STARTS[domain + 1] - STARTS[domain]
        rows.append(
            at + (rng.integers(size) + rng.integers(0, 4, rng.integers(1, 9)).cumsum()) % size
        )
    return Histories(np.cumsum([0, *map(len, rows)]), np.concatenate(rows))


def similarity_by_the_definition(histories):
    found = np.zeros((50, 50))
    for first, end in zip(histories.offsets[:-1], histories.offsets[1:], strict=True):
        row = histories.items[first:end]
        for one in range(len(row)):
            for other in range(one + 1, min(one + 6, len(row))):
                if row[one] != row[other]:
                    found[row[one], row[other]] += 1 / (other - one)
                    found[row[other], row[one]] += 1 / (other - one)
    taken = np.bincount(histories.items, minlength=50)
    return found / np.sqrt(np.outer(taken, taken))


def test_products_are_the_positive_part_of_the_similarity_within_each_domain(histories):
    vectors = neighbour_vectors(histories, STARTS, 40).double().numpy()
    similarity = similarity_by_the_definition(histories)
    for first, end in ((0, 30), (30, 50)):
        own = vectors[first:end]
        assert np.linalg.norm(own, axis=1).mean() == pytest.approx(1.0)
        values, directions = np.linalg.eigh(similarity[first:end, first:end])
        positive = (directions * np.maximum(values, 0)) @ directions.T
        scale = np.trace(own @ own.T) / np.trace(positive)
        np.testing.assert_allclose(own @ own.T, scale * positive, atol=1e-5)
    assert np.abs(vectors[30:, 20:]).max() == 0.0  # a domain of 20 items has no more directions


def test_few_columns_are_the_leading_ones_and_an_item_alone_has_none(histories):
    few, many = (neighbour_vectors(histories, np.array([0, 51]), k) for k in (5, 40))
    cosines = torch.nn.functional.cosine_similarity(few, many[:, :5], dim=0)
    torch.testing.assert_close(cosines, torch.ones(5))
    assert few.shape == (51, 5)
    assert few[50].abs().max() == 0.0


def test_the_block_power_iteration_finds_nearly_what_eigh_finds():
    from scipy import sparse

    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, 600, (2, 6000))
    matrix = sparse.csr_array((rng.random(6000), (rows, columns)), shape=(600, 600))
    matrix = matrix + matrix.T
    values, vectors = _block_power(matrix, 110)
    exact = np.linalg.eigvalsh(matrix.toarray())
    # No values are as hard to part as those of a random matrix: even so, little is missing.
    assert 0.98 * exact[-20:].sum() < np.sort(values)[-20:].sum() <= exact[-20:].sum()
    assert np.array_equal(values, _block_power(matrix, 110)[0])
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(110), atol=1e-9)
    leading = _leading(matrix, 20)
    assert leading.shape == (600, 20)
    assert np.all(np.diff(np.linalg.norm(leading, axis=0)) < 1e-9)


def built(**items):
    torch.manual_seed(0)
    texts = torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    config = ItemTableConfig(**{"neighbours": True, "neighbour_columns": 8, **items})
    table = ItemTable.build(config, 50, 16, texts, torch.from_numpy(STARTS))
    return Recommender(table, Hydra(HydraConfig(dim=16, layers=1, heads=2)))


CONFIG = TrainingConfig(epochs=2, negatives=16, batch_tokens=256)


def trained(model, histories, folder=None, **changes):
    config = CONFIG.model_copy(update=changes)
    return train(model, histories, STARTS, config, seed=0, checkpoint_dir=folder)


def test_training_is_that_without_neighbours_and_ranking_has_them_at_their_weight(histories):
    with_them, without = built(text_channel=True), built(text_channel=True, neighbours=False)
    for model in (with_them, without):
        trained(model, histories)
    for (name, one), (_, other) in zip(
        with_them.named_parameters(), without.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name
    history, seams, items = torch.tensor([3, 7, 9]), torch.tensor([0, 3]), torch.arange(30)
    scores = []
    for model in (with_them.eval(), without.eval()):
        with torch.no_grad():
            scores.append(model.user_vectors(history, seams)[-1] @ model.item_vectors(items).T)
    rows = neighbour_vectors(histories, STARTS, 8)
    mean = (0.64 * rows[3] + 0.8 * rows[7] + rows[9]) / 2.44
    # The text's weight is learned a little, and that of neighbours goes with it.
    weight = 0.25 * with_them.items.channel.weights[0].item() / 2.0
    torch.testing.assert_close(scores[0] - scores[1], weight * rows[:30] @ mean)


def test_texts_of_a_domain_count_more_and_its_neighbours_what_they_did(histories):
    model = built(text_channel=True)
    trained(model, histories)
    history, seams = torch.tensor([3, 7, 31, 40]), torch.tensor([0, 2, 4])
    scores = []
    for multiple in (1.0, 3.0):
        model.items.channel.multiply_texts(0, multiple)
        model.eval()
        with torch.no_grad():
            users = model.user_vectors(history, seams)[[1, 3]]
            scores.append(users @ model.item_vectors(torch.arange(50)).T)
    channel = model.items.channel
    texts = (0.8 * channel.columns[3] + channel.columns[7]) / 1.8
    # The weight holds 3 times what it did: two thirds of it are new.
    more = channel.weights[0].item() * 2 / 3
    found, expected = (scores[1][0] - scores[0][0])[:30], more * channel.columns[:30] @ texts
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(scores[1][1, 30:], scores[0][1, 30:])


def test_a_table_without_text_ranks_with_neighbours_too(histories):
    model = built(text=False, neighbour_weight=0.5)
    trained(model, histories)
    model.eval()
    with torch.no_grad():
        user = model.user_vectors(torch.tensor([31]), torch.tensor([0, 1]))[0, 16:]
    torch.testing.assert_close(user, 0.5 * neighbour_vectors(histories, STARTS, 8)[31])
    assert model.width == 24


def test_neighbours_are_saved_with_the_weights_and_survive_a_resumed_training(histories, tmp_path):
    whole, cut = built(text_channel=True), built(text_channel=True)
    trained(whole, histories)
    config = CONFIG
    train(cut, histories, STARTS, config, seed=0, checkpoint_dir=tmp_path, until_epoch=1)
    again = built(text_channel=True)
    train(again, histories, STARTS, config, seed=0, checkpoint_dir=tmp_path)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert "items.channel.neighbours" in again.state_dict()
    assert "items.channel.neighbours" not in built(neighbours=False, text_channel=True).state_dict()
