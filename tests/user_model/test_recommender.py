from itertools import pairwise

import numpy as np
import pytest
import torch

from user_model import Hydra, HydraConfig, ItemTable, Recommender, SASRec, SASRecConfig


@pytest.fixture(params=["hydra", "sasrec"])
def model(request):
    sequence = {
        "hydra": lambda: Hydra(HydraConfig(dim=16, layers=1)),
        "sasrec": lambda: SASRec(SASRecConfig(dim=16, layers=1)),
    }[request.param]()
    return Recommender(ItemTable(30, 16), sequence)


@pytest.fixture
def histories():
    lengths = [3, 1, 0, 7, 2, 0]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return offsets, np.random.default_rng(0).integers(0, 30, offsets[-1])


def test_encoding_is_the_vector_after_the_last_item_and_zero_for_nobody(model, histories):
    offsets, items = histories
    users = model.encode_histories(offsets, items)
    model.eval()
    for row, (first, last) in enumerate(pairwise(offsets)):
        history = torch.from_numpy(items[first:last])
        expected = (
            model.user_vectors(history, torch.tensor([0, len(history)]))[-1]
            if len(history)
            else torch.zeros(16)
        )
        torch.testing.assert_close(users[row], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("block_tokens", [1, 4, 5, 100])
def test_blocks_change_nothing(model, histories, block_tokens):
    whole = model.encode_histories(*histories)
    blocks = model.encode_histories(*histories, block_tokens=block_tokens)
    torch.testing.assert_close(blocks, whole, rtol=1e-5, atol=1e-6)


def test_encoding_leaves_the_mode_as_it_was_and_is_without_dropout(model, histories):
    model.train()
    first, second = model.encode_histories(*histories), model.encode_histories(*histories)
    assert torch.equal(first, second)
    assert model.training


def test_vectors_have_length_one(model):
    items = torch.arange(30)
    users = model.user_vectors(items, torch.tensor([0, 12, 30]))
    for vectors in (users, model.item_vectors(items)):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(30))


def test_parameters_are_counted_with_and_without_ids(model):
    counts = model.parameter_counts()
    assert counts.total == sum(p.numel() for p in model.parameters())
    assert counts.total - counts.non_embedding == 30 * 16
