"""Token vectors distilled from a model, and the encoder that sums them."""

import json
import shutil

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from item_llm import EncoderConfig, ItemLLMConfig, finetune, load_encoder
from item_llm.base_models import PretrainedModel
from item_llm.cache import EmbeddingCache
from item_llm.distilling import distilled, inverse_frequency, without_common
from item_llm.pairs import ItemPairs
from item_llm.reading import describe_encoder

FROZEN = {"encoder": {"base": "static"}, "lora": None}


@pytest.fixture(scope="module")
def table(tiny_bert, tmp_path_factory):
    """The folder of the table distilled from the tiny model."""
    return distilled(PretrainedModel.find(str(tiny_bert)), tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def encoder(table):
    return load_encoder(EncoderConfig(base=str(table)))


def rows_of(table):
    return load_file(table / "model.safetensors")["embeddings"]


def test_a_row_is_what_the_teacher_makes_of_the_token_without_what_all_share(tiny_bert, table):
    model, tokenizer = (
        AutoModel.from_pretrained(tiny_bert),
        AutoTokenizer.from_pretrained(tiny_bert),
    )
    vectors = []
    for token in range(len(tokenizer)):
        inner = [] if token == tokenizer.pad_token_id else [token]
        ids = torch.tensor([[tokenizer.cls_token_id, *inner, tokenizer.sep_token_id]])
        with torch.no_grad():
            mean = model(ids).last_hidden_state[0].mean(0)
        vectors.append((mean / mean.norm()).numpy())
    left = np.array(vectors, np.float64) - np.mean(vectors, axis=0)
    widest = np.linalg.svd(left)[2][0]
    left -= np.outer(left @ widest, widest)
    shares = 1 / np.arange(2, 2 + len(tokenizer) - 6)  # no special token, and not [unused0]
    weights = np.concatenate([np.ones(6), 1e-4 / (1e-4 + shares / shares.sum())])
    np.testing.assert_allclose(rows_of(table), left * weights[:, None], atol=1e-6, rtol=1e-3)


def test_the_mean_and_the_largest_directions_are_taken_out():
    rng = np.random.default_rng(0)
    common = np.linalg.qr(rng.standard_normal((12, 2)))[0].T
    vectors = rng.standard_normal((500, 12)) + 3 + rng.standard_normal((500, 2)) * 40 @ common
    left = without_common(vectors, 2)
    np.testing.assert_allclose(left.mean(axis=0), 0, atol=1e-9)
    assert np.abs(left @ common.T).max() < 1
    assert np.linalg.matrix_rank(left) == 10
    np.testing.assert_allclose(without_common(vectors, 0), vectors - vectors.mean(0), atol=1e-9)


def test_frequent_tokens_are_made_small_and_special_ones_are_left():
    ranked = np.array([False, True, True, False, True])  # shares 1/2, 1/3, 1/4 of 13/12
    weights = inverse_frequency(ranked, a=1 / 13)
    np.testing.assert_allclose(weights, [1, 1 / 7, 1 / 5, 1, 1 / 4])


def test_a_text_is_the_unit_sum_of_its_tokens_whatever_stands_beside_it(encoder, table):
    texts = ["red wooden train", "", "blue  doll, set of 9", "red wooden train", "zebra"]
    rows, tokenizer = rows_of(table), encoder.tokens.tokenizer
    vectors = encoder.encode(texts)
    for text, vector in zip(texts, vectors, strict=True):
        ids = tokenizer(text, add_special_tokens=False).input_ids or [tokenizer.pad_token_id]
        total = rows[ids].sum(axis=0)
        np.testing.assert_allclose(vector, total / np.linalg.norm(total), atol=1e-6)
        assert (encoder.encode([text])[0] == vector).all()
    assert vectors.dtype == np.float32
    assert encoder.encode([]).shape == (0, 64)


def test_a_text_is_cut_to_max_tokens(table):
    short = load_encoder(EncoderConfig(base=str(table), max_tokens=2))
    assert (short.encode(["red train, set of 9"]) == short.encode(["red train"])).all()


def test_the_table_is_made_once_and_again_alike(tiny_bert, table, tmp_path):
    teacher = PretrainedModel.find(str(tiny_bert))
    mark = (table / "manifest.json").stat().st_mtime_ns
    assert distilled(teacher, table.parent) == table
    assert (table / "manifest.json").stat().st_mtime_ns == mark, "it was distilled again"
    again = distilled(teacher, tmp_path)
    assert (again / "model.safetensors").read_bytes() == (table / "model.safetensors").read_bytes()
    known = load_encoder(EncoderConfig(base=str(table))).fingerprint
    assert load_encoder(EncoderConfig(base=str(again))).fingerprint == known
    assert not [p for p in tmp_path.iterdir() if p != again], "something was left beside it"


def test_a_damaged_table_raises(tiny_bert, tmp_path):
    teacher = PretrainedModel.find(str(tiny_bert))
    weights = distilled(teacher, tmp_path) / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(ValueError, match=r"model\.safetensors: sha256 .* damaged"):
        distilled(teacher, tmp_path)


def test_the_fingerprint_covers_the_table_and_is_known_without_it_in_memory(table, tmp_path):
    config = EncoderConfig(base=str(table))
    fingerprint = load_encoder(config).fingerprint
    assert describe_encoder(config) == (fingerprint, 64)
    assert describe_encoder(EncoderConfig(base=str(table), max_tokens=9))[0] != fingerprint
    changed = shutil.copytree(table, tmp_path / "changed")
    rows = rows_of(table)
    rows[7, 0] += 1e-3
    save_file({"embeddings": rows}, changed / "model.safetensors")
    assert describe_encoder(EncoderConfig(base=str(changed)))[0] != fingerprint


def test_another_layout_of_the_table_is_refused(table, tmp_path):
    other = shutil.copytree(table, tmp_path / "other")
    tensors = {"embeddings": rows_of(table), "mapping": np.arange(3)}
    save_file(tensors, other / "model.safetensors")
    with pytest.raises(ValueError, match=r"holds .*'mapping': \[3\].* expected 'embeddings' alone"):
        load_encoder(EncoderConfig(base=str(other)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora": {"r": 4}}, r"lora is .*r=4.*set `lora: null`"),
        ({"lora": {}, "adapter": "runs/adapter"}, r"adapter is runs/adapter: set `adapter: null`"),
        ({"encoder": {"base": "static", "pooling": "item"}}, r"pooling is 'item'.* averaged"),
        ({"encoder": {"base": "static", "prompt": "Product:"}}, r"prompt is 'Product:'"),
        ({"encoder": {"base": "static", "dtype": "mixed"}}, r"dtype is 'mixed'.*remove `dtype`"),
    ],
)
def test_what_a_table_cannot_do_is_refused_when_the_config_is_read(change, message):
    assert ItemLLMConfig.model_validate(FROZEN).encoder.base == "static"
    with pytest.raises(ValidationError, match=message):
        ItemLLMConfig.model_validate(FROZEN | change)


def test_a_table_named_by_its_folder_is_refused_when_it_is_found(table, tmp_path):
    base = str(table)
    with pytest.raises(ValueError, match="not a model that could be tuned: set `lora: null`"):
        empty = ItemPairs(*(np.zeros(1, np.int64) for _ in range(4)))
        finetune(ItemLLMConfig(encoder={"base": base}), empty, empty, ["a"], tmp_path / "out")
    with pytest.raises(ValueError, match="which no adapter fits"):
        load_encoder(EncoderConfig(base=base), tmp_path)
    with pytest.raises(ValueError, match="dtype is 'bfloat16'"):
        describe_encoder(EncoderConfig(base=base, dtype="bfloat16"))


def test_the_cache_keeps_its_vectors_like_any_others(encoder, item_texts, tmp_path):
    cache = EmbeddingCache.open(tmp_path, encoder.fingerprint, encoder.dim)
    assert cache.refresh(item_texts, encoder).encoded == len(item_texts)
    assert cache.refresh([*item_texts, "a red kite"], encoder).encoded == 1
    snapshot = cache.snapshot(item_texts[::-1], tmp_path / "snapshot")
    assert (snapshot.vectors == encoder.encode(item_texts)[::-1]).all()


def test_a_plan_sees_whether_the_table_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRAREC_MODELS", str(tmp_path))
    assert not PretrainedModel.is_ready("static")
    assert not list(tmp_path.iterdir()), "asking made it"


def test_the_table_of_minilm_knows_what_is_alike():
    encoder = load_encoder(EncoderConfig(base="static"))
    config = json.loads((PretrainedModel.find("static").folder / "config.json").read_text())
    assert (encoder.dim, config["hidden_dim"]) == (384, 384)
    texts = ["Wooden train set, 80 pieces", "Railway tracks made of beech wood",
             "Waterproof mascara, black", "Eyeliner pencil"]  # fmt: skip
    v = encoder.encode(texts)
    assert v[0] @ v[1] > v[0] @ v[2] + 0.1
    assert v[2] @ v[3] > v[2] @ v[0] + 0.1
