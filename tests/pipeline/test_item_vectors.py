"""The stage that writes a run's snapshot, where the cache has every text already: no Ray starts."""

import dataclasses

import numpy as np
import pytest

from item_llm import EncoderConfig, ItemLLMConfig, load_encoder
from item_llm.cache import EmbeddingCache
from pipeline.corpus import Corpus
from pipeline.item_vectors import encode_corpus
from pipeline.progress import Progress
from pipeline.snapshots import open_vectors
from pipeline.stages import StageContext
from pipeline.string_table import StringTable
from pipeline.workers.cluster import ComputeConfig

TEXTS = ["tin kettle", "iron kettle", "glass jar", "tin kettle"]


@pytest.fixture(scope="module")
def corpus(corpus_of):
    events = [(f"u{k % 3}", f"i{k}", k) for k in range(len(TEXTS))]
    return dataclasses.replace(corpus_of({"shop": events}), texts=StringTable.of(TEXTS))


@pytest.mark.parametrize(("dtype", "error"), [("float32", 0.0), ("float16", 2e-4), ("int8", 0.002)])
def test_a_run_stores_its_vectors_as_the_config_says(corpus, tmp_path, dtype, error):
    encoder = load_encoder(EncoderConfig(base="static"))
    cache = EmbeddingCache.open(tmp_path / "cache", encoder.fingerprint, encoder.dim)
    cache.commit([(TEXTS, encoder.encode(TEXTS))])
    corpus.save(tmp_path / "corpus" / "corpus")
    config = ItemLLMConfig(encoder=EncoderConfig(base="static"), lora=None)
    with Progress().stage("vectors") as progress:
        inputs = {"corpus": tmp_path / "corpus"}
        context = StageContext(tmp_path / "out", tmp_path / "scratch", inputs, progress)
        context.output.mkdir()
        made = encode_corpus(config, ComputeConfig(), str(tmp_path / "cache"), dtype, context)
    assert made == {"encoded": 0, "reused": 3, "base": "static"}
    snapshot = open_vectors(tmp_path / "out", Corpus.open(tmp_path / "corpus" / "corpus"))
    assert snapshot.vectors.dtype == np.dtype(dtype)
    rows = snapshot.rows(slice(None))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, encoder.encode(TEXTS), atol=error)
