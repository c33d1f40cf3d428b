"""The real MiniLM, out of its Python package."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from item_llm import EncoderConfig, ItemEncoder
from item_llm.base_models import PretrainedModel

TEXTS = [
    "Wooden train set, 80 pieces",
    "A very long description of a toy. " * 3,
    "Railway tracks made of beech wood",
    "Waterproof mascara, black",
    "Eyeliner pencil",
]


@pytest.fixture(scope="module")
def encoder():
    return ItemEncoder.load(EncoderConfig(base="minilm"))


def test_vectors_are_the_mean_over_all_tokens_as_sentence_transformers_takes_it(encoder):
    folder = PretrainedModel.find("minilm").folder
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=66, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch.attention_mask[..., None]
    means = (hidden * mask).sum(1) / mask.sum(1)
    expected = torch.nn.functional.normalize(means, dim=-1).numpy()
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-6)
    assert encoder.pooling == "mean"
    assert encoder.item is None
    assert encoder.tokens.prefix == (101,)


def test_texts_that_mean_the_same_are_near(encoder):
    v = encoder.encode(TEXTS)
    assert v[0] @ v[2] > v[0] @ v[3] + 0.2
    assert v[3] @ v[4] > v[3] @ v[0] + 0.2


def test_an_encoder_can_have_an_item_position_and_a_prompt():
    encoder = ItemEncoder.load(EncoderConfig(base="minilm", pooling="item", prompt="Product:"))
    vectors = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(vectors, alone, atol=1e-6)
    ids = encoder.tokens.tokenizer("Product: Eyeliner pencil").input_ids[:-1]
    embedded = encoder.core.get_input_embeddings()(torch.tensor([ids]))
    embedded = torch.cat([embedded, encoder.item[None, None]], dim=1)
    with torch.no_grad():
        hidden = encoder.core(inputs_embeds=embedded).last_hidden_state[0, -1]
    expected = torch.nn.functional.normalize(hidden, dim=-1)
    np.testing.assert_allclose(vectors[4], expected, atol=1e-6)
