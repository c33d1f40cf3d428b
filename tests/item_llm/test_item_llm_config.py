import pytest
from pydantic import ValidationError

from item_llm import EncoderConfig, FinetuningConfig, ItemLLMConfig, LoraConfig


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (EncoderConfig, "promt"),
        (LoraConfig, "rank"),
        (FinetuningConfig, "lr"),
        (ItemLLMConfig, "encodr"),
    ],
)
def test_a_misspelt_field_is_refused(config, field):
    with pytest.raises(ValidationError, match=field):
        config(**{field: 1})


def test_every_field_has_a_description():
    for config in (EncoderConfig, LoraConfig, FinetuningConfig, ItemLLMConfig):
        assert all(field.description for field in config.model_fields.values()), config


def test_a_pinned_adapter_contradicts_a_frozen_encoder():
    with pytest.raises(ValidationError, match=r"lora is null .* remove `adapter`"):
        ItemLLMConfig(lora=None, adapter="runs/adapter")


def test_yaml_forms_are_read():
    config = ItemLLMConfig.model_validate(
        {"encoder": {"base": "minilm"}, "lora": {"target_modules": ["query"]}, "adapter": "a/b"}
    )
    assert config.lora is not None
    assert config.lora.target_modules == ("query",)
    assert ItemLLMConfig.model_validate(config.model_dump(mode="json")) == config
