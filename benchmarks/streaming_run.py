"""The small run whose bundle benchmarks.streaming measures, and what evaluation says of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from pipeline import Recommender
from pipeline.config import RunConfig
from pipeline.export import export
from pipeline.progress import Progress
from pipeline.run import execute
from pipeline.run_outputs import RunOutputs
from pipeline.task_data import TaskData
from pipeline.user_model_task import TaskFolders, UserModelTask
from pipeline.user_models import WEIGHTS
from user_model.checkpoint import load_weights

DOMAIN = "books"


@dataclass(frozen=True)
class Asked:
    """What evaluation scores: n test users of one domain, whose histories are whole.

    Attributes:
        recommender: of the run's bundle.
        histories: item ids of each user, oldest first.
        scores: float32 [n, V], as evaluation has them.
        targets: int64 [n], rows.
    """

    recommender: Recommender
    histories: list[list[str]]
    scores: NDArray[np.float32]
    targets: NDArray[np.int64]


@contextmanager
def small_run(*, users: int, items: int, text_channel: bool, seed: int = 0) -> Iterator[Asked]:
    """Train the user model of configs/amazon2014-small.yaml for an epoch, export it, evaluate."""
    shop = {"format": "simulated", "catalogue": DOMAIN, "population": users, "items": items}
    content = {
        "name": "streaming",
        "seed": seed,
        "domains": [{"name": DOMAIN, "source": shop | {"share": 1.0, "mean_history": 60}}],
        "models": ["hydra_joint"],
        "split": {"max_history": None},
        "item_llm": {"encoder": {"base": "static"}, "lora": None},
        "user_model": {
            **{"layers": 1, "items": {"text_channel": text_channel}},
            "training": {"epochs": 1, "negatives": 128},
        },
        "compute": {"in_process": True, "workers": 1},
    }
    with tempfile.TemporaryDirectory(prefix="hydrarec-streaming-") as name:
        folder = Path(name)
        config = RunConfig.model_validate(content | {"store": str(folder / "store")})
        execute(config, folder / "run", Progress(Console(quiet=True)))
        yield _asked(folder / "run", export(folder / "run"), config)


def _asked(run: Path, bundle: Path, config: RunConfig) -> Asked:
    outputs = RunOutputs.read(run)
    folders = TaskFolders(
        corpus=outputs.output("corpus") / "corpus", vectors=outputs.output("vectors")
    )
    data = TaskData(UserModelTask.of("hydra_joint", None, config), folders)
    model = data.build()
    load_weights(outputs.output("train.hydra_joint") / WEIGHTS, model)
    domain = data.corpus.domain(DOMAIN)
    cases = data.cases(domain, "test")
    scorer = data.scorer(model, domain, cases)
    with torch.inference_mode():
        scores = scorer(cases, slice(0, len(cases.targets))).numpy()
    ids = list(data.corpus.item_ids)
    histories = [
        [ids[int(place)] for place in cases.history[first:end]]
        for first, end in zip(cases.offsets[:-1], cases.offsets[1:], strict=True)
    ]
    return Asked(Recommender.load(bundle), histories, scores, cases.targets - domain.first_item)
