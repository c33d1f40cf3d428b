"""Directions of texts count by how well they tell what stands near, as the definition says."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.user_model.test_neighbours import Histories
from user_model import (
    Hydra,
    HydraConfig,
    ItemTable,
    ItemTableConfig,
    Recommender,
    TrainingConfig,
    train,
)
from user_model.checkpoint import load_weights, save_weights
from user_model.new_items import NewItems
from user_model.text_correlations import SHRINKAGE, correlated_directions
from user_model.whitening import whitened_by_domain

STARTS = np.array([0, 60, 110])
TELLING, TEXTS = 2, 8  # columns that tell what follows, and all of them


@pytest.fixture(scope="module")
def texts():
    return torch.randn(110, TEXTS, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def histories(texts):
    """People go on to items whose first columns are near; the others tell nothing."""
    rng, rows = np.random.default_rng(0), []
    for _ in range(500):
        first, end = rng.choice(list(pairwise(STARTS)))
        own = texts[first:end, :TELLING].numpy()
        row = [rng.integers(end - first)]
        for _ in range(5):
            near = np.argsort(((own - own[row[-1]]) ** 2).sum(1))[1:7]
            row.append(rng.choice(near))
        rows.append(first + np.array(row))
    return Histories(np.cumsum([0, *map(len, rows)]), np.concatenate(rows))


@pytest.fixture(scope="module")
def columns(texts):
    white = whitened_by_domain(texts, torch.from_numpy(STARTS))
    return functional.normalize(white, dim=1)


def pairs_by_the_definition(histories):
    for first, end in pairwise(histories.offsets):
        row = histories.items[first:end]
        for one in range(len(row)):
            for other in range(one + 1, min(one + 6, len(row))):
                if row[one] != row[other]:
                    yield row[one], row[other], 1 / (other - one)
                    yield row[other], row[one], 1 / (other - one)


def products_by_the_definition(histories, columns, first, end):
    """x' B diag(max(r, 0)) B' y for all pairs of items, with B from an inverse root."""
    x, together, alone, total = columns.double().numpy(), 0.0, 0.0, 0.0
    for one, other, weight in pairs_by_the_definition(histories):
        if first <= one < end:
            together = together + weight * np.outer(x[one], x[other])
            alone = alone + weight * np.outer(x[one], x[one])
            total += weight
    together, alone = together / total, alone / total
    alone = (1 - SHRINKAGE) * alone + SHRINKAGE * np.trace(alone) / TEXTS * np.eye(TEXTS)
    values, vectors = np.linalg.eigh(alone)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    correlations, turned = np.linalg.eigh(root @ together @ root)
    metric = root @ turned @ np.diag(np.maximum(correlations, 0)) @ turned.T @ root
    return x[first:end] @ metric @ x[first:end].T


def test_products_are_those_of_the_definition(histories, columns):
    found = correlated_directions(columns, histories, STARTS)
    assert found.shape == (2, TEXTS, TEXTS)
    for turn, (first, end) in zip(found, pairwise(STARTS), strict=True):
        turned = (columns[first:end] @ turn).double().numpy()
        expected = products_by_the_definition(histories, columns, first, end)
        np.testing.assert_allclose(turned @ turned.T, expected, atol=1e-5)


def turned_by_domain(columns, histories):
    turns = correlated_directions(columns, histories, STARTS)
    domains = zip(turns, pairwise(STARTS), strict=True)
    return torch.cat([columns[first:end] @ turn for turn, (first, end) in domains])


def test_what_tells_nothing_of_the_next_item_hardly_counts(histories, columns, texts):
    def of_telling(rows):
        """How products go with nearness in the telling columns, in the first domain."""
        near = torch.cdist(texts[:60, :TELLING], texts[:60, :TELLING])
        return -np.corrcoef(near.flatten(), (rows[:60] @ rows[:60].T).flatten())[0, 1]

    assert of_telling(columns) < 0.5
    assert of_telling(turned_by_domain(columns, histories)) > 0.7


def test_a_domain_without_pairs_keeps_its_columns(columns):
    alone = Histories(np.array([0, 2, 4]), np.array([3, 3, 70, 71]))
    found = correlated_directions(columns, alone, STARTS)
    torch.testing.assert_close(found[0], torch.eye(TEXTS))
    assert not torch.allclose(found[1], torch.eye(TEXTS), atol=1e-2)


def test_a_domain_with_fewer_items_than_columns_has_finite_ones(texts, histories):
    few = np.array([0, 4, 110])
    white = functional.normalize(whitened_by_domain(texts, torch.from_numpy(few)), dim=1)
    assert torch.isfinite(correlated_directions(white, histories, few)).all()


def built(texts, **items):
    torch.manual_seed(0)
    config = ItemTableConfig(**{"text_channel": True, "text_correlations": True, **items})
    table = ItemTable.build(config, 110, 16, texts, torch.from_numpy(STARTS))
    return Recommender(table, Hydra(HydraConfig(dim=16, layers=1))), config


def trained(texts, histories, *, epochs=2, folder=None, until=None, **items):
    model, config = built(texts, **items)
    settings = TrainingConfig(epochs=epochs, batch_tokens=512, negatives=16)
    train(model, histories, STARTS, settings, seed=0, checkpoint_dir=folder, until_epoch=until)
    return model, config


def all_items(model):
    return model.eval().items.channel.items(torch.arange(110))


@pytest.mark.parametrize("neighbours", [False, True])
def test_training_turns_the_texts_and_weights_that_are_loaded_turn_them_too(
    texts, histories, columns, tmp_path, neighbours
):
    items = {"neighbours": neighbours, "neighbour_columns": 4}
    model, _ = trained(texts, histories, **items)
    expected = functional.normalize(turned_by_domain(columns, histories), dim=1)
    torch.testing.assert_close(all_items(model)[:, :TEXTS], expected)
    save_weights(tmp_path / "weights", model, {})
    fresh, _ = built(texts, **items)
    torch.testing.assert_close(all_items(fresh)[:, :TEXTS], columns)
    for _ in range(2):  # again: they are turned once
        load_weights(tmp_path / "weights", fresh)
        assert torch.equal(all_items(fresh), all_items(model))


def test_a_resumed_training_ends_with_the_same_bits(texts, histories, tmp_path):
    whole, _ = trained(texts, histories)
    trained(texts, histories, folder=tmp_path / "steps", until=1)
    resumed, _ = trained(texts, histories, folder=tmp_path / "steps")
    expected = whole.state_dict()
    assert "items.channel.directions" in expected
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert torch.equal(all_items(resumed), all_items(whole))


def test_a_trained_model_that_is_trained_on_keeps_its_texts(texts, histories):
    model, _ = trained(texts, histories)
    before = all_items(model).clone()
    other = Histories(histories.offsets[:50], histories.items[: histories.offsets[49]])
    train(model, other, STARTS, TrainingConfig(epochs=1, batch_tokens=512, negatives=16), seed=1)
    assert torch.equal(all_items(model), before)


def test_new_items_are_turned_as_those_of_the_table(texts, histories):
    model, config = trained(texts, histories)
    for number, (first, end) in enumerate(pairwise(STARTS)):
        new = NewItems.of(model.items, config, texts, number, slice(first, end))
        torch.testing.assert_close(new.columns(texts[first:end]), all_items(model)[first:end])


def test_without_text_there_is_nothing_to_turn(texts, histories):
    model, _ = built(texts, text_channel=False, neighbours=True, neighbour_columns=4)
    assert not model.items.channel.is_to_turn()
    assert "items.channel.directions" not in model.state_dict()
