"""Runs configs in this process, without a Ray: CPU seconds and memory of each stage, and the sizes.

    python -m benchmarks.scaling_worker

reads a config as JSON from each line of standard input, runs it in an empty folder, and answers
with a JSON line. A first small run, which is not told, compiles and imports what runs need.
"""

import ctypes
import json
import sys
import tempfile
import time
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.scaling_sizes import Sizes, shops
from pipeline.config import RunConfig
from pipeline.corpus import Corpus
from pipeline.prepare import CORPUS, DATA
from pipeline.progress import Progress
from pipeline.resident_memory import forget_peak, peak_bytes
from pipeline.run import execute
from pipeline.stages import StageResult
from pipeline.whole_files import read_json

MIB = 1 << 20


class StageMeter:
    """CPU seconds of each stage, and by how many MiB its peak stood above the level before it."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}
        self._begin()

    def _begin(self) -> None:
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that is kept would hide new use
        forget_peak()
        self._level = peak_bytes()
        self._cpu = time.process_time()

    def __call__(self, result: StageResult) -> None:
        """A stage is over; with one slot the next has not begun."""
        self.stages[result.name] = {
            "cpu_seconds": time.process_time() - self._cpu,
            # Work forgets the peak before it begins: what came before it was less.
            "extra_mib": (peak_bytes() - self._level) / MIB,
            "peak_mib": peak_bytes() / MIB,
        }
        self._begin()


def measured(config: RunConfig) -> dict[str, Any]:
    """Run a config: its sizes, and the figures of each stage."""
    quiet = Progress(Console(file=StringIO()))
    meter = StageMeter()
    with tempfile.TemporaryDirectory() as folder:
        config = config.model_copy(update={"store": f"{folder}/store"})
        outcome = execute(config, Path(folder) / "run", quiet, meter)
        found = outcome.stages["corpus"].artifact.path
        read = read_json(found / DATA)["domains"].values()
        sizes = counted(Corpus.open(found / CORPUS), config)
        sizes["read"] = sum(domain["interactions_read"] for domain in read)
    return {"sizes": Sizes(**sizes).__dict__, "stages": meter.stages}


def counted(corpus: Corpus, config: RunConfig) -> dict[str, int]:
    """The sizes that stages grow with, of a corpus and a config."""
    texts = set(corpus.texts)
    people = [
        len(np.unique(corpus.event_users[corpus.event_domains == number]))
        for number in range(len(corpus.domains))
    ]
    finetuning = config.item_llm.finetuning
    return {
        "users": sum(people),
        "items": corpus.n_items,
        "interactions": corpus.n_events,
        "pairs": sum(n * d.n_items for n, d in zip(people, corpus.domains, strict=True)),
        "texts": len(texts),
        "characters": sum(map(len, texts)),
        "epochs": config.user_model.training.epochs,
        "width": config.user_model.dim,
        "batch_tokens": config.user_model.training.batch_tokens,
        "finetuning_texts": 2 * (finetuning.max_steps or 0) * finetuning.pairs_per_step,
        "finetuning_batch": 2 * finetuning.pairs_per_step,
    }


def main() -> None:
    """Warm up, then answer."""
    measured(shops(population=150, items=40))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(measured(RunConfig.model_validate_json(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
