"""One of the processes of test_distributed: trains as worker RANK of SIZE, writes what it learned.

Usage: gloo_worker.py RANK SIZE RENDEZVOUS_FILE HISTORIES.npz OUTPUT
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import distributed

from user_model import (
    Hydra,
    HydraConfig,
    ItemTable,
    Recommender,
    SASRec,
    SASRecConfig,
    TrainingConfig,
    Workers,
    train,
)

NAMES = ("hydra", "sasrec", "hydra_time")


class Rows:
    def __init__(self, arrays):
        self.offsets, self.items = arrays["offsets"], arrays["items"]


def build(name, seed, n_items):
    torch.manual_seed(seed)
    sequence = {
        "hydra": lambda: Hydra(HydraConfig(dim=16, layers=1, dropout=0.3)),
        "hydra_time": lambda: Hydra(
            HydraConfig(dim=16, layers=1, dropout=0.3, time_gaps=True, history_mean=True)
        ),
        "sasrec": lambda: SASRec(SASRecConfig(dim=16, layers=1, dropout=0.3)),
    }[name]()
    return Recommender(ItemTable(n_items, 16, torch.randn(n_items, 6), id_dropout=0.2), sequence)


def learn(name, workers, arrays):
    """Train a model of this name; return the losses of its steps, weights and validations."""
    model = build(name, 0, int(arrays["domain_starts"][-1]))
    if workers.rank:
        # Elsewhere on purpose: worker 0's weights count.
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)
    config = TrainingConfig(
        epochs=3, batch_tokens=128, negatives=16, negatives_tile=32, lr=0.01, warmup_steps=5,
        weight_decay=0.01, domain_temperature=0.5, popularity_share=0.3, log_q=True,
        ema_decay=0.8, in_batch_share=0.3 if name == "hydra_time" else 0.0,
        positions="last" if name == "hydra_time" else "all",
    )  # fmt: skip
    losses = []
    result = train(
        model, Rows(arrays), arrays["domain_starts"], config, seed=3, workers=workers,
        validate=lambda m: float(workers.rank + 1), on_step=lambda r: losses.append(r.loss),
        times=np.arange(len(arrays["items"])) ** 2 if name == "hydra_time" else None,
    )  # fmt: skip
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    validations = [r.validation for r in result.history]
    return {"losses": losses, "weights": weights.tolist(), "validations": validations}


def main(rank, size, rendezvous, histories, output):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=size
    )
    arrays = np.load(histories)
    learned = {name: learn(name, Workers(rank, size), arrays) for name in NAMES}
    Path(output).write_text(json.dumps(learned))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
