"""LoRA adapters: what is trained, and the folder in which it is exchanged.

The folder is a PEFT folder (adapter_config.json, adapter_model.safetensors) that plain peft loads
on the base model without its head, plus item_vector.safetensors ([ITEM], where the encoder has
one) and manifest.json with the sha256 of every file and the reading it was trained for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from item_llm.folders import publish, read_manifest, sha256_of_json, staged, write_manifest

if TYPE_CHECKING:
    from item_llm.encoder import ItemEncoder

_KIND = "item LLM adapter"
_ITEM_FILE = "item_vector.safetensors"
# Attention's query and value, as in the LoRA paper, under the names that families give them.
_QUERY_AND_VALUE = (("q_proj", "v_proj"), ("query", "value"), ("q_lin", "v_lin"), ("c_attn",))


class LoraConfig(BaseModel):
    """Shape of the low-rank adapter (Hu et al. 2021); rank and targets are our choice [D]."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    r: int = Field(default=8, ge=1, description="Rank of each update.")
    alpha: float = Field(
        default=16.0, gt=0, description="Scale of the update: it is multiplied by alpha / r."
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Dropout on the adapter's input while training."
    )
    target_modules: tuple[str, ...] | None = Field(
        default=None,
        description="Names of the linear layers to adapt; null: attention's query and value.",
    )


def attach_lora(encoder: ItemEncoder, config: LoraConfig) -> None:
    """Put trainable low-rank updates (zero at first) into the encoder's core, in place.

    Raises:
        ValueError: a target module that the model does not have.
    """
    from peft import LoraConfig as PeftLoraConfig
    from peft import TaskType, get_peft_model

    encoder.requires_grad_(False)
    encoder.core = get_peft_model(
        encoder.core,
        PeftLoraConfig(
            task_type=TaskType.FEATURE_EXTRACTION,
            r=config.r,
            lora_alpha=config.alpha,  # peft's type says int; it only divides
            lora_dropout=config.dropout,
            target_modules=list(_targets(encoder, config.target_modules)),
        ),
    )
    encoder.core.peft_config["default"].base_model_name_or_path = encoder.config.base
    if encoder.item is not None:
        encoder.item.requires_grad_(True)


def save_adapter(
    encoder: ItemEncoder, trained: Mapping[str, torch.Tensor], folder: Path
) -> tuple[Path, str]:
    """Write the adapter folder: aside, synced, manifest last, one rename; an older one makes way.

    Args:
        encoder: with LoRA attached; its own weights are not read (ZeRO-3 leaves them in shards).
        trained: whole float32 tensors by the names of the encoder's trainable parameters.
        folder: where the adapter is put.

    Returns:
        The folder, and the adapter's hash.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    inside = {k.removeprefix("core."): v for k, v in trained.items() if k.startswith("core.")}
    state = get_peft_model_state_dict(encoder.core, state_dict=inside)
    # A set in peft, in an order of each process's own: equal adapters would have unequal hashes.
    settings = encoder.core.peft_config["default"]
    settings.target_modules = sorted(settings.target_modules)
    with staged(folder) as staging:
        encoder.core.save_pretrained(staging, state_dict=inside, safe_serialization=True)
        assert len(state) == len(inside), "peft dropped some of the adapter's tensors"
        for readme in staging.glob("README.md"):
            readme.unlink()  # peft's model card template: empty of facts
        if "item" in trained:
            save_file({"item": trained["item"].contiguous()}, staging / _ITEM_FILE)
        manifest = write_manifest(staging, _KIND, {"reading": encoder.reading})
        publish(staging, folder, replace=True)
    return folder, adapter_sha256(manifest)


def merge_adapter(encoder: ItemEncoder, folder: Path) -> str:
    """Load an adapter folder into the encoder and merge its LoRA into the weights.

    Returns:
        The adapter's hash.

    Raises:
        ValueError: a damaged folder, or one trained on another base, prompt or pooling.
    """
    from peft import PeftModel
    from safetensors.torch import load_file

    sha256 = read_adapter_sha256(folder, encoder.reading)
    encoder.core = PeftModel.from_pretrained(encoder.core, str(folder)).merge_and_unload()
    if encoder.item is not None:
        encoder.item.data.copy_(load_file(folder / _ITEM_FILE)["item"])
    return sha256


def read_adapter_sha256(folder: Path, reading: Mapping[str, Any] | None = None) -> str:
    """The hash of a finished adapter's folder.

    Args:
        folder: of the adapter.
        reading: how the encoder reads that it is to be used with; None: any.

    Raises:
        ValueError: the folder is absent or damaged, or trained on another base, prompt or pooling.
    """
    manifest = read_manifest(folder, _KIND)
    for name, expected in manifest["reading"].items():
        if reading is not None and (got := reading.get(name)) != expected:
            raise ValueError(
                f"adapter {folder}: it was trained with {name} {expected!r}, this encoder has "
                f"{got!r}; use the encoder settings of the adapter's run, or train another adapter"
            )
    return adapter_sha256(manifest)


def adapter_sha256(manifest: Mapping[str, Any]) -> str:
    """The adapter's hash: over its files' checksums and its reading, not over the folder's name."""
    return sha256_of_json({"files": manifest["files"], "reading": manifest["reading"]})


def _targets(encoder: ItemEncoder, chosen: tuple[str, ...] | None) -> tuple[str, ...]:
    """The modules to adapt: those chosen, or query and value under the model's own names."""
    present = {name.rsplit(".", 1)[-1] for name, _ in encoder.core.named_modules()}
    for names in (chosen,) if chosen is not None else _QUERY_AND_VALUE:
        if set(names) <= present:
            return names
    raise ValueError(
        f"lora.target_modules is {chosen}, but {encoder.config.base!r} "
        f"({encoder.core.config.model_type}) has the modules {sorted(present - {''})}: "
        "name linear layers among these"
    )
