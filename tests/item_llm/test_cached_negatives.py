import numpy as np
import pytest
import torch

from item_llm import EncoderConfig, ItemEncoder, ItemPairs
from item_llm.cached_negatives import CachedNegatives
from item_llm.contrastive import ContrastiveModel, TextTable
from item_llm.objective import centred
from item_llm.zero import process_group

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder(tiny_llama):
    return ItemEncoder.load(EncoderConfig(base=str(tiny_llama)))


@pytest.fixture
def pairs():
    """Domain 0 names the texts 0 to 31, domain 1 the texts 32 to 35."""
    source = np.array([*range(0, 32, 2), 32, 33])
    target = np.array([*range(1, 32, 2), 34, 35])
    return ItemPairs(source, target, np.array([0] * 16 + [1] * 2))


def encoded(encoder, texts, negatives):
    with process_group(1):
        model = ContrastiveModel(encoder, 0.05, learn=False)
        negatives.encode(TextTable(encoder, texts), model)
    return negatives


def test_draws_are_of_the_batchs_domain_and_each_text_once(encoder, pairs, item_texts):
    domains = np.array([0, 1, 0])
    negatives = encoded(encoder, item_texts, CachedNegatives(pairs, domains, 8, seed=0))
    ids = [negatives.of_step(step, CPU).ids.tolist() for step in range(3)]
    assert [len(set(drawn)) for drawn in ids] == [8, 4, 8]
    assert set(ids[0] + ids[2]) <= set(range(32))
    assert set(ids[1]) == {32, 33, 34, 35}
    assert ids[0] != ids[2]
    again = encoded(encoder, item_texts, CachedNegatives(pairs, domains, 8, seed=0))
    assert [again.of_step(step, CPU).ids.tolist() for step in range(3)] == ids
    other = encoded(encoder, item_texts, CachedNegatives(pairs, domains, 8, seed=1))
    assert other.of_step(0, CPU).ids.tolist() != ids[0]


def test_vectors_are_the_untuned_encoders_and_centred(encoder, pairs, item_texts):
    negatives = encoded(encoder, item_texts, CachedNegatives(pairs, np.array([0]), 8, seed=0))
    drawn = negatives.of_step(0, CPU)
    texts = [item_texts[i] for i in drawn.ids.tolist()]
    expected = centred(torch.from_numpy(encoder.encode(texts)))
    torch.testing.assert_close(drawn.vectors, expected, rtol=0, atol=2e-5)


def test_recomputing_keeps_no_activations_and_gives_the_same_gradients(tiny_llama, item_texts):
    def gradients(recompute):
        encoder = ItemEncoder.load(EncoderConfig(base=str(tiny_llama)))
        model = ContrastiveModel(encoder, 0.05, learn=True, recompute=recompute)
        encoder.item.requires_grad_(True)
        encoder.core.layers[0].requires_grad_(True)
        rows = encoder.tokenize(item_texts[:12])
        batches = [encoder.collate(rows[i : i + 4]) for i in (0, 4, 8)]
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            vectors, scale, _ = model(batches)
            loss = (scale * vectors @ vectors.T).square().mean()
        loss.backward()
        trained = [p.grad for p in model.parameters() if p.requires_grad]
        return sum(t.numel() for t in kept), trained

    kept, expected = gradients(recompute=False)
    kept_again, found = gradients(recompute=True)
    assert kept_again < 0.05 * kept
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
