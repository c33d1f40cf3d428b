import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from item_llm import EncoderConfig, ItemEncoder, LoraConfig
from item_llm.adapter import attach_lora, read_adapter_sha256, save_adapter
from item_llm.base_models import PretrainedModel
from item_llm.folders import sha256_of


def trained_encoder(base, modules=None, **fields):
    """An encoder whose LoRA and [ITEM] were moved away from their start, as training would."""
    config = EncoderConfig(base=str(base), **fields)
    encoder = ItemEncoder(config, PretrainedModel.find(config.base))
    attach_lora(encoder, LoraConfig(r=2, alpha=4, target_modules=modules))
    generator = torch.Generator().manual_seed(1)
    for parameter in encoder.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return encoder.eval()


def save(encoder, folder):
    trained = {k: p.detach() for k, p in encoder.named_parameters() if p.requires_grad}
    return save_adapter(encoder, trained, folder)


@pytest.fixture(params=["tiny", "minilm"])
def base(request, tiny_llama):
    return tiny_llama if request.param == "tiny" else "minilm"


def test_merged_for_inference_equals_unmerged(base, tmp_path, item_texts):
    encoder = trained_encoder(base)
    _, digest = save(encoder, tmp_path / "adapter")
    merged = ItemEncoder.load(encoder.config, tmp_path / "adapter")
    expected = encoder.encode(item_texts)
    np.testing.assert_allclose(merged.encode(item_texts), expected, atol=1e-5)
    frozen = ItemEncoder.load(encoder.config)
    assert np.abs(frozen.encode(item_texts) - expected).max() > 1e-2, "the adapter does nothing"
    assert len(digest) == 64
    assert len({frozen.fingerprint, merged.fingerprint}) == 2
    assert not any("lora" in name for name, _ in merged.core.named_modules())


def test_the_folder_loads_in_plain_peft(tiny_llama, tmp_path):
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    encoder = trained_encoder(tiny_llama, prompt="red")
    save(encoder, tmp_path / "adapter")
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(tiny_llama), tmp_path / "adapter")
    item = load_file(tmp_path / "adapter" / "item_vector.safetensors")["item"]
    ids = AutoTokenizer.from_pretrained(tiny_llama)("red blue train", return_tensors="pt").input_ids
    embedded = torch.cat([model.get_input_embeddings()(ids), item[None, None]], dim=1)
    with torch.no_grad():
        hidden = model(inputs_embeds=embedded).last_hidden_state[0, -1]
    expected = F.normalize(hidden, dim=-1)
    np.testing.assert_allclose(encoder.encode(["blue train"])[0], expected, atol=1e-6)


def test_the_folder_holds_no_pickle_and_no_path_of_this_machine(tiny_llama, tmp_path):
    save(trained_encoder(tiny_llama), tmp_path / "adapter")
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert names == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "item_vector.safetensors",
        "manifest.json",
    }
    assert list(tmp_path.iterdir()) == [tmp_path / "adapter"], "something was left beside it"


def test_saving_again_replaces_the_folder_and_equal_adapters_hash_equally(tiny_llama, tmp_path):
    encoder = trained_encoder(tiny_llama)
    first, again = (save(encoder, tmp_path / "adapter")[1] for _ in range(2))
    assert first == again == save(encoder, tmp_path / "elsewhere")[1]
    encoder.item.data += 1
    assert save(encoder, tmp_path / "adapter")[1] != first


def test_the_adapters_bytes_do_not_hang_on_the_order_of_a_set(tiny_llama, tmp_path):
    modules = ("v_proj", "o_proj", "q_proj", "k_proj", "up_proj", "down_proj", "gate_proj")
    encoder = trained_encoder(tiny_llama, modules)
    save(encoder, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(modules)


def test_a_damaged_adapter_raises(tiny_llama, tmp_path):
    encoder = trained_encoder(tiny_llama)
    save(encoder, tmp_path / "adapter")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors: sha256 is"):
        ItemEncoder.load(encoder.config, tmp_path / "adapter")


def test_a_manifest_cannot_name_a_file_outside_its_folder(tmp_path):
    (tmp_path / "other").write_text("x")
    manifest = {"kind": "item LLM adapter", "files": {"../other": sha256_of(tmp_path / "other")}}
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(manifest | {"reading": {}}))
    with pytest.raises(ValueError, match=r"\.\./other: sha256 is no such file"):
        read_adapter_sha256(folder)


def test_an_unfinished_adapter_raises(tiny_llama, tmp_path):
    encoder = trained_encoder(tiny_llama)
    save(encoder, tmp_path / "adapter")
    (tmp_path / "adapter" / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"no manifest\.json"):
        ItemEncoder.load(encoder.config, tmp_path / "adapter")


@pytest.mark.parametrize(
    ("fields", "named"), [({"prompt": "x"}, "prompt"), ({"pooling": "mean"}, "pooling")]
)
def test_an_adapter_of_another_reading_raises(tiny_llama, tmp_path, fields, named):
    save(trained_encoder(tiny_llama), tmp_path / "adapter")
    with pytest.raises(ValueError, match=f"trained with {named}"):
        ItemEncoder.load(EncoderConfig(base=str(tiny_llama), **fields), tmp_path / "adapter")


def test_an_adapter_of_another_base_raises(tiny_llama, tmp_path):
    encoder = trained_encoder(tiny_llama)
    save(encoder, tmp_path / "adapter")
    manifest = tmp_path / "adapter" / "manifest.json"
    values = json.loads(manifest.read_text())
    values["reading"]["base_sha256"] = "0" * 64
    with pytest.raises(ValueError, match="differs from its own checksum"):
        manifest.write_text(json.dumps(values))
        ItemEncoder.load(encoder.config, tmp_path / "adapter")
    del values["manifest_sha256"]
    manifest.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="trained with base_sha256 '0000"):
        ItemEncoder.load(encoder.config, tmp_path / "adapter")


def test_unknown_target_modules_are_listed(tiny_llama):
    encoder = ItemEncoder.load(EncoderConfig(base=str(tiny_llama)))
    with pytest.raises(ValueError, match=r"\('queri',\).*'k_proj'.*'v_proj'"):
        attach_lora(encoder, LoraConfig(target_modules=("queri",)))
