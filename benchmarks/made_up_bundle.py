"""A bundle of any size without a training: an untrained Hydra and drawn item vectors.

It costs what a trained one costs; what it recommends means nothing.
"""

from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file

from item_llm.folders import write_manifest
from pipeline.recommender.bundle import (
    ALL_DOMAINS,
    BUNDLE,
    FORMAT,
    KIND,
    BundleConfig,
    BundledDomain,
    ScopeConfig,
    weights_file,
)
from pipeline.string_table import StringTableWriter
from pipeline.whole_files import write_json
from user_model import Hydra, HydraConfig

DOMAIN = "shop"


def write_made_up_bundle(folder: Path, items: int, seed: int) -> None:
    """Write a bundle of one domain.

    Args:
        folder: to be made.
        items: size of the catalogue; their ids are `item-0` and so on, whatever the seed.
        seed: of weights and vectors.
    """
    torch.manual_seed(seed)
    config = HydraConfig()
    hydra, path = Hydra(config), folder / weights_file(ALL_DOMAINS)
    path.parent.mkdir(parents=True)
    save_file({name: t.contiguous() for name, t in hydra.state_dict().items()}, path)
    place = folder / "domains" / DOMAIN
    place.mkdir(parents=True)
    vectors = np.random.default_rng(seed).standard_normal((items, config.dim), dtype=np.float32)
    np.save(place / "inputs.npy", vectors)
    np.save(place / "vectors.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    for name, text in (("ids", "item-{}"), ("texts", "Item number {} of a shop that is made up")):
        with StringTableWriter(place / f"{name}.arrow") as writer:
            writer.add(pl.Series([text.format(row) for row in range(items)]))
    domain = BundledDomain(
        scope=ALL_DOMAINS, n_items=items, channel=None, has_inputs=True, takes_new_items=False
    )
    bundle = BundleConfig(
        model="hydra_ids",
        run="made up",
        window=None,
        scopes={ALL_DOMAINS: ScopeConfig(hydra=config, normalise=True)},
        domains={DOMAIN: domain},
        encoder=None,
        state={},
    )
    write_json(folder / BUNDLE, bundle.model_dump(mode="json"))
    write_manifest(folder, KIND, {"format": FORMAT})
