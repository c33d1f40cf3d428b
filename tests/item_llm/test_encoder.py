import numpy as np
import pytest
import torch
from torch.nn import functional as F

from item_llm import EncoderConfig, ItemEncoder
from item_llm.prompts import DEFAULT_PROMPT
from item_llm.reading import describe_encoder

TEXTS = ["red wooden train", "blue drum, set of 10", "", "red wooden train", "kite " * 9]


@pytest.fixture(scope="module")
def encoder(tiny_llama):
    return ItemEncoder.load(EncoderConfig(base=str(tiny_llama), max_tokens=16))


def test_item_vector_is_the_last_hidden_state_at_the_item_position(encoder):
    text = "red wooden train"
    tokenizer = encoder.tokens.tokenizer
    ids = tokenizer(DEFAULT_PROMPT).input_ids + tokenizer(" " + text).input_ids
    embedded = encoder.core.get_input_embeddings()(torch.tensor([ids]))
    embedded = torch.cat([embedded, encoder.item[None, None]], dim=1)
    with torch.no_grad():
        hidden = encoder.core(inputs_embeds=embedded).last_hidden_state[0, -1]
    expected = F.normalize(hidden, dim=-1).numpy()
    np.testing.assert_allclose(encoder.encode([text])[0], expected, atol=1e-6)


def test_vectors_keep_the_order_and_are_unit_float32(encoder):
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (5, encoder.dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(vectors[0], vectors[3])
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(encoder.encode([text])[0], vector, atol=1e-6)
    assert len(np.unique(vectors.round(4), axis=0)) == 4


@pytest.mark.parametrize("batch_tokens", [1, 17, 10_000])
def test_padding_and_batching_change_nothing(encoder, item_texts, batch_tokens):
    expected = encoder.encode(item_texts)
    got = encoder.encode(item_texts, batch_tokens=batch_tokens)
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("pooling", ["item", "mean"])
def test_a_prompt_read_once_equals_a_prompt_read_with_every_item(tiny_llama, pooling):
    encoder = ItemEncoder.load(EncoderConfig(base=str(tiny_llama), pooling=pooling))
    assert encoder.shares_prefix
    once = encoder.encode(TEXTS)
    encoder.shares_prefix = False
    np.testing.assert_allclose(encoder.encode(TEXTS), once, atol=1e-6)


def test_mean_pooling_averages_the_texts_own_tokens(tiny_llama):
    encoder = ItemEncoder.load(EncoderConfig(base=str(tiny_llama), pooling="mean"))
    tokenizer = encoder.tokens.tokenizer
    prompt, text = tokenizer(DEFAULT_PROMPT).input_ids, tokenizer(" blue drum").input_ids
    with torch.no_grad():
        hidden = encoder.core(torch.tensor([prompt + text])).last_hidden_state[0]
    expected = F.normalize(hidden[len(prompt) :].mean(0), dim=-1)
    np.testing.assert_allclose(encoder.encode(["blue  drum "])[0], expected, atol=1e-6)


def test_gradients_reach_the_item_vector_and_the_same_vectors_come_out(encoder, item_texts):
    encoder.item.requires_grad_(True)
    rows = encoder.tokenize(item_texts[:6])
    vectors = encoder([encoder.collate(rows[:2]), encoder.collate(rows[2:])])
    vectors[:, 0].sum().backward()
    assert encoder.item.grad.abs().sum() > 0
    encoder.item.requires_grad_(False)
    np.testing.assert_allclose(vectors.detach(), encoder.encode(item_texts[:6]), atol=1e-6)


def test_no_texts_give_no_vectors(encoder):
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_a_vector_that_is_not_finite_raises(tiny_llama):
    encoder = ItemEncoder.load(EncoderConfig(base=str(tiny_llama)))
    token = encoder.tokenize(["kite"])[0][-1]
    encoder.core.get_input_embeddings().weight.data[token] = float("nan")
    with pytest.raises(ValueError, match=r"1 of 2 vectors are not finite, the first .* 'red kite'"):
        encoder.encode(["red train", "red kite"])


def test_too_many_tokens_for_the_model_raise(tiny_llama):
    with pytest.raises(ValueError, match=r"max_tokens is 128; .* reads 128 at most"):
        ItemEncoder.load(EncoderConfig(base=str(tiny_llama), max_tokens=128))


def test_mean_pooling_of_a_causal_model_needs_a_prompt(tiny_llama):
    with pytest.raises(ValueError, match="prompt is empty"):
        ItemEncoder.load(EncoderConfig(base=str(tiny_llama), pooling="mean", prompt=""))


def test_the_fingerprint_is_of_what_decides_a_vector(tiny_llama, tmp_path):
    def fingerprint(**fields):
        return ItemEncoder.load(EncoderConfig(**{"base": str(tiny_llama), **fields})).fingerprint

    moved = tmp_path / "another name"
    moved.symlink_to(tiny_llama)
    reference = fingerprint()
    assert fingerprint(base=str(moved)) == reference
    assert fingerprint(batch_tokens=3) == reference
    assert fingerprint(prompt=DEFAULT_PROMPT) == reference
    assert fingerprint(pooling="item") == reference
    changes = [
        {"prompt": "x"},
        {"pooling": "mean"},
        {"max_tokens": 9},
        {"dtype": "bfloat16"},
        {"dtype": "mixed"},
    ]
    assert len({reference, *(fingerprint(**c) for c in changes)}) == 6


def test_bfloat16_is_near_float32(encoder, tiny_llama):
    half = ItemEncoder.load(EncoderConfig(base=str(tiny_llama), max_tokens=16, dtype="bfloat16"))
    cosines = (half.encode(TEXTS) * encoder.encode(TEXTS)).sum(1)
    assert cosines.min() > 0.999
    assert half.encode(TEXTS).dtype == np.float32


def test_an_encoder_is_described_without_its_weights(tiny_llama, tmp_path):
    folder = tmp_path / "no weights in memory"
    folder.symlink_to(tiny_llama)
    for fields in ({}, {"prompt": "x"}, {"pooling": "mean"}, {"max_tokens": 9}):
        config = EncoderConfig(**{"base": str(folder), **fields})
        encoder = ItemEncoder.load(config)
        encoder.encode(TEXTS)  # sets truncation: the description does not depend on it
        assert describe_encoder(config) == (encoder.fingerprint, encoder.dim)


def test_mixed_is_nearer_to_float32_than_bfloat16(encoder, tiny_llama, item_texts):
    exact = encoder.encode(item_texts)
    distance = {}
    for dtype in ("mixed", "bfloat16"):
        config = EncoderConfig(base=str(tiny_llama), max_tokens=16, dtype=dtype)
        distance[dtype] = 1 - (ItemEncoder.load(config).encode(item_texts) * exact).sum(1).min()
    assert 0 < distance["mixed"] < distance["bfloat16"]
    assert distance["mixed"] < 2e-4  # of weights drawn far apart; MiniLM: 3e-5
