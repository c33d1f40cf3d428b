"""The static encoder against the model that it was distilled from, on one domain.

    python -m benchmarks.static --domain beauty --seeds 0 1

Items a second of processor time; then, for each seed, what benchmarks.objectives measures of an
untuned encoder: ranks of held-out pairs, NDCG@10 by the cosine to the last item alone, and that of
a Hydra with text vectors and no ids. The items' texts are distinct, so none is encoded twice.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Check, finish, median_ratio
from benchmarks.objectives import Setting, options_of
from item_llm import EncoderConfig, ItemEncoder, StaticEncoder, load_encoder

BASES = ("minilm", "static")
_LEAST_SPEED = 20.0  # times as many items a second; our choice [D]
_LEAST_QUALITY = 0.75  # of minilm's NDCG@10 under a Hydra; our choice [D]
_REPETITIONS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both encoders; returns the exit status."""
    options = options_of(_parser(), arguments)
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        setting = Setting.prepare(options, Path(name))
        max_tokens = setting.run.item_llm.encoder.max_tokens
        encoders = {
            base: load_encoder(EncoderConfig(base=base, max_tokens=max_tokens)) for base in BASES
        }
        texts = list(dict.fromkeys(setting.corpus.texts))[: options.timed_texts]
        seconds = processor_seconds(encoders, texts)
        for base, encoder in encoders.items():
            speed = len(texts) / float(np.median(seconds[base]))
            for seed in options.seeds:
                found = setting.measure(encoder, seed)
                rows.append({"base": base, "seed": seed, "items/s": round(speed), **found})
                print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    quality = _mean(rows, "static") / _mean(rows, "minilm")
    checks = [
        Check(
            "static / minilm: items a second",
            median_ratio(seconds["minilm"], seconds["static"]),
            _LEAST_SPEED,
            "least",
        ),
        Check("static / minilm: NDCG@10 of a Hydra", quality, _LEAST_QUALITY, "least"),
    ]
    return finish("static", checks, rows)


def processor_seconds(
    encoders: Mapping[str, ItemEncoder | StaticEncoder], texts: list[str]
) -> dict[str, list[float]]:
    """Processor time of each repetition, by encoder; they take turns, after a first one unseen."""
    seconds: dict[str, list[float]] = {base: [] for base in encoders}
    for number in range(1 + _REPETITIONS):
        for base, encoder in encoders.items():
            began = time.process_time()
            encoder.encode(texts)
            if number:
                seconds[base].append(time.process_time() - began)
    return seconds


def _mean(rows: Sequence[dict[str, Any]], base: str) -> float:
    return float(np.mean([row["ndcg@10 hydra"] for row in rows if row["base"] == base]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--timed-texts", type=int, default=2000, help="texts that are timed")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
