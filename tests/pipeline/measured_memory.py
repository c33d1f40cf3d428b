"""Run one training in this process and print its peak memory beside what was told of it."""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from item_llm import ItemLLMConfig, ItemPairs, finetune
from item_llm.memory import finetuning_memory
from pipeline.architectures import recommender
from pipeline.config import RunConfig
from pipeline.memory import kept_by_autograd, run_memory
from pipeline.resident_memory import peak_extra_bytes
from user_model import train

TEXT_WIDTH = 384  # of minilm, on which the config stands
DOMAIN = {"name": "shop", "source": {"format": "ids", "path": "shop.txt"}}


class Rows:
    """Histories of one length over items drawn at random."""

    def __init__(self, rows, length, n_items):
        self.offsets = np.arange(rows + 1) * length
        self.items = np.random.default_rng(0).integers(n_items, size=rows * length)


def of_user_model(n_items):
    config = RunConfig.model_validate(
        {
            "domains": [DOMAIN],
            "models": ["hydra_joint"],
            "compute": {"workers": 1},
            "item_llm": {"encoder": {"base": "minilm"}},
            "user_model": {
                "dim": 128,
                "training": {"epochs": 2, "batch_tokens": 32768, "min_epoch_steps": 1},
            },
        }
    )
    told = run_memory(config, ["hydra_joint"], tunes=False).models["hydra_joint"]

    def run(histories, items):
        model = recommender("hydra_joint", config.user_model, items, torch.randn(items, TEXT_WIDTH))
        starts = np.array([0, items])
        train(model, histories, starts, config.user_model.training, seed=0, validate=lambda _: 0.5)

    run(Rows(10, 20, 300), 300)  # threads, compiled kernels
    histories = Rows(2 * 32768 // 50, 51, n_items)
    return told.total(n_items), peak_extra_bytes(lambda: run(histories, n_items))[0]


def of_item_llm(pairs_per_step):
    config = ItemLLMConfig.model_validate(
        {
            "encoder": {"base": "minilm", "max_tokens": 64},
            "finetuning": {"pairs_per_step": pairs_per_step, "max_steps": 3, "zero_stage": 2},
        }
    )
    told = finetuning_memory(config, 1, kept_by_autograd).total
    texts = [f"{'word ' * 80}{number}" for number in range(1000)]
    rows = np.arange(len(texts))
    pairs = ItemPairs(rows, np.roll(rows, 1), np.zeros(len(rows), dtype=np.int64))
    nothing = ItemPairs(*(np.zeros(0, dtype=np.int64) for _ in range(3)))

    def run(settings, texts):
        with tempfile.TemporaryDirectory() as folder:
            finetune(settings, pairs, nothing, texts, Path(folder) / "adapter")

    small = config.finetuning.model_copy(update={"pairs_per_step": 2})
    run(config.model_copy(update={"finetuning": small}), texts)
    return told, peak_extra_bytes(lambda: run(config, texts))[0]


if __name__ == "__main__":
    torch.set_num_threads(1)
    measure = {"user_model": of_user_model, "item_llm": of_item_llm}[sys.argv[1]]
    told, measured = measure(int(sys.argv[2]))
    print(json.dumps({"told": told, "measured": measured}))
