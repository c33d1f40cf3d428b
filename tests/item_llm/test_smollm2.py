"""The real SmolLM2-135M, dequantised from the GGUF in its Python package."""

import gzip
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from item_llm import EncoderConfig, ItemEncoder
from item_llm.base_models import PretrainedModel, _packaged_file

pytestmark = pytest.mark.slow

TRICKY = (
    "Hello  world\n 2024: 3.14",
    "Pok\u00e9mon \u2013 na\u00efve \u201cquotes\u201d \u2122",
    "\u65e5\u672c\u8a9e \u73a9\u5177 \U0001f9f8\U0001f682",
    "don't <|im_end|> x1000y\t\ta",
    "\u03a9\u200b\u00df \ufdfa",
)


@pytest.fixture(scope="module")
def folder():
    return PretrainedModel.find("smollm2").folder


def test_logits_and_tokens_equal_those_of_transformers_own_gguf_loader(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    path = _packaged_file("smollm2")
    reference = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(folder)(
        "The wooden train has 80 pieces, and the bridge", return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        got, expected = model(ids).logits, reference(ids).logits
    assert (got - expected).square().mean().sqrt() / expected.square().mean().sqrt() < 1e-5


def test_the_tokenizer_round_trips_and_splits_digits(folder):
    tokenizer = PretrainedModel.find("smollm2").load_tokenizer()
    for text in TRICKY:
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.convert_ids_to_tokens(tokenizer("1000").input_ids) == ["1", "0", "0", "0"]


def test_all_titles_round_trip(folder, data_folder):
    tokenizer = PretrainedModel.find("smollm2").load_tokenizer()
    with gzip.open(data_folder / "amazon2014/toys/items.tsv.gz", "rt", encoding="utf-8") as file:
        titles = [line.split("\t")[1] for line in file]
    rows = tokenizer(titles).input_ids
    assert tokenizer.batch_decode(rows) == titles


def test_encoding_is_finite_ordered_and_invariant_to_padding():
    encoder = ItemEncoder.load(EncoderConfig(base="smollm2"))
    texts = ["Wooden train set", "Waterproof mascara, black, with a brush and a mirror", ""]
    vectors = encoder.encode(texts)
    assert vectors.shape == (3, 576)
    np.testing.assert_allclose(
        np.concatenate([encoder.encode([t]) for t in texts]), vectors, atol=1e-6
    )


def test_two_processes_may_dequantise_at_once(tmp_path):
    code = "from item_llm.base_models import *; print(PretrainedModel.find('smollm2').sha256)"
    environment = {**os.environ, "HYDRAREC_MODELS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    hashes = [process.communicate(timeout=240)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert hashes[0] == hashes[1] == PretrainedModel.find("smollm2").sha256
    assert len(list(tmp_path.iterdir())) == 1, "an unfinished folder was left behind"
