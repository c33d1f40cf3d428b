"""Writing a bundle: a trained model's parts, in the files that `bundle` describes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save_file

from pipeline.recommender.bundle import (
    ADAPTER,
    ALL_DOMAINS,
    BundledDomain,
    ChannelConfig,
    ScopeConfig,
    weights_file,
)
from pipeline.string_table import StringTableWriter
from user_model import Hydra, HydraConfig, Recommender
from user_model.new_items import NewItems

if TYPE_CHECKING:
    from pipeline.corpus import DomainInfo
    from pipeline.task_data import TaskData

Tell = Callable[[float, float, str], None]  # rows done, of all, the domain

_BLOCK = 65_536  # rows that are made at a time


@dataclass(frozen=True)
class TrainedModel:
    """A trained model of one domain, or of all, with what it sees of the corpus.

    Attributes:
        model: with its trained weights.
        data: its items, from the corpus.
        texts: float32 [n_items, d_text], the text vectors it was built with; None: ids alone.
    """

    model: Recommender
    data: TaskData
    texts: torch.Tensor | None

    @property
    def scope(self) -> str:
        """Its name in the bundle."""
        return self.data.task.domain or ALL_DOMAINS

    @property
    def hydra(self) -> Hydra:
        """Its sequence model."""
        assert isinstance(self.model.sequence_model, Hydra)
        return self.model.sequence_model


def write_model(folder: Path, trained: TrainedModel) -> ScopeConfig:
    """Write a sequence model's weights."""
    path = folder / weights_file(trained.scope)
    path.parent.mkdir(parents=True)
    weights = {
        name: tensor.contiguous().clone() for name, tensor in trained.hydra.state_dict().items()
    }
    save_file(weights, path)
    shape = {name: getattr(trained.hydra.config, name) for name in HydraConfig.model_fields}
    return ScopeConfig(hydra=HydraConfig(**shape), normalise=trained.model.normalise)


@torch.inference_mode()
def write_domain(
    folder: Path, trained: TrainedModel, domain: DomainInfo, tell: Tell
) -> BundledDomain:
    """Write a domain's items: ids, texts, vectors, and what a new text becomes."""
    place, model = folder / "domains" / domain.name, trained.model
    place.mkdir(parents=True)
    corpus, end = trained.data.corpus, domain.first_item + domain.n_items
    for name, table in (("ids", corpus.item_ids), ("texts", corpus.texts)):
        with StringTableWriter(place / f"{name}.arrow") as writer:
            for at in range(domain.first_item, end, _BLOCK):
                writer.add(table.series(at, min(at + _BLOCK, end)))
    channel = model.items.channel
    has_inputs = model.normalise or channel is not None
    _write_vectors(place, trained, domain, tell, has_inputs=has_inputs)
    number = [one.name for one in trained.data.domains].index(domain.name)
    new_items = None
    if trained.texts is not None:
        first = domain.first_item - trained.data.first_item
        config, rows = trained.data.task.architecture.items, slice(first, first + domain.n_items)
        new_items = NewItems.of(model.items, config, trained.texts, number, rows)
    if new_items is not None:
        save_file(
            {name: tensor.contiguous() for name, tensor in new_items.to_dict().items()},
            place / "new_items.safetensors",
        )
    kept = None
    if channel is not None:
        weight = float(channel.weights[number])
        kept = ChannelConfig(width=channel.width, decay=channel.decay, weight=weight)
    return BundledDomain(
        scope=trained.scope,
        n_items=domain.n_items,
        channel=kept,
        has_inputs=has_inputs,
        takes_new_items=new_items is not None,
    )


def _write_vectors(
    place: Path, trained: TrainedModel, domain: DomainInfo, tell: Tell, *, has_inputs: bool
) -> None:
    model, first = trained.model, domain.first_item - trained.data.first_item
    tables = {"vectors": model.width} | ({"inputs": model.items.dim} if has_inputs else {})
    files = {
        name: np.lib.format.open_memmap(
            place / f"{name}.npy", mode="w+", dtype=np.float32, shape=(domain.n_items, width)
        )
        for name, width in tables.items()
    }
    for at in range(0, domain.n_items, _BLOCK):
        rows = slice(at, min(at + _BLOCK, domain.n_items))
        items_M = torch.arange(first + rows.start, first + rows.stop)
        inputs_Md = model.items(items_M)
        files["vectors"][rows] = model.item_vectors_of(inputs_Md, items_M).numpy()
        if has_inputs:
            files["inputs"][rows] = inputs_Md.numpy()
        tell(rows.stop, domain.n_items, domain.name)
    for file in files.values():
        file.flush()


def write_adapter(folder: Path, adapter: Path) -> None:
    """Copy a finished adapter's folder."""
    shutil.copytree(adapter, folder / ADAPTER)
