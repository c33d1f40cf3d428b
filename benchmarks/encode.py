"""The item LLM's throughput against the field's usual ways: `python -m benchmarks.encode`.

Same weights, same texts (amazon2014/beauty, a fixed sample), equal threads. MiniLM against
sentence-transformers' `encode` (float32, its defaults) in the peers' venv; SmolLM2-135M against a
plain transformers loop, batches of 32 in the order given, padded. Equality first: the least cosine
of any text's two vectors. The rivals take turns, so that the machine's noise hits both.
"""

import argparse
import sys
import time
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.harness import Check, Timing, finish, median_ratio
from benchmarks.peer_process import PeerProcess
from item_llm import EncoderConfig, ItemEncoder
from pipeline.domains import DomainConfig
from pipeline.paths import data_root
from pipeline.sources.registry import read_source

MAX_TOKENS = 64
LEAST_COSINE = 0.9999
_SPECIAL_TOKENS = 2  # [CLS] and [SEP], which sentence-transformers counts and we do not
_LOOP_BATCH = 32


class SentenceTransformers(PeerProcess):
    """sentence-transformers in a process of its own."""

    def __init__(self, folder: str, threads: int) -> None:
        arguments = [str(threads), folder, str(MAX_TOKENS + _SPECIAL_TOKENS)]
        super().__init__("benchmarks.encode_peer", arguments)

    def encode(self, texts: list[str]) -> tuple[np.ndarray, float]:
        """Vectors float32 [n, d], and the seconds that they took it."""
        answer, tensors = self.ask({"texts": texts})
        return tensors["vectors"].numpy(), answer["seconds"]


def plain_loop(encoder: ItemEncoder, texts: list[str]) -> np.ndarray:
    """What one writes first: batches of 32 as they come, prompt and all, padded on the right."""
    prefix, pad = list(encoder.tokens.prefix), 0
    parts = []
    for start in range(0, len(texts), _LOOP_BATCH):
        rows = [prefix + row for row in encoder.tokenize(texts[start : start + _LOOP_BATCH])]
        ends = torch.tensor([len(row) for row in rows])
        width = int(ends.max()) + 1
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
        at = torch.arange(len(rows))
        with torch.inference_mode():
            embedded = encoder.core.get_input_embeddings()(ids)
            embedded[at, ends] = encoder.item
            mask = (torch.arange(width) <= ends[:, None]).long()
            hidden = encoder.core(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
            parts.append(F.normalize(hidden[at, ends], dim=-1).numpy())
    return np.concatenate(parts)


def timed(encode: Any, texts: list[str]) -> tuple[np.ndarray, float]:
    """Vectors, and the seconds that they took."""
    began = time.perf_counter()
    vectors = encode(texts)
    return vectors, time.perf_counter() - began


def compare(
    name: str, texts: list[str], rival: Any, ours: dict[str, ItemEncoder], repetitions: int
) -> dict[str, dict[str, float]]:
    """Items a second and ratios to the rival, for each of our encoders, after equality."""
    expected, _ = rival(texts)
    cosines = {
        kind: float((encoder.encode(texts) * expected).sum(axis=1).min())
        for kind, encoder in ours.items()
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in ("rival", *ours)}
    for _ in range(repetitions):
        seconds["rival"].append(rival(texts)[1])
        for kind, encoder in ours.items():
            seconds[kind].append(timed(encoder.encode, texts)[1])
    print(f"{name}: {len(texts) / Timing.of(seconds['rival']).median:.1f} items/s", flush=True)
    rows = {}
    for kind, cosine in cosines.items():
        speed = len(texts) / Timing.of(seconds[kind]).median
        ratio = median_ratio(seconds["rival"], seconds[kind])
        rows[kind] = {"cosine": cosine, "ratio": ratio, "items_per_second": speed}
        print(f"  ours, {kind}: {speed:.1f} items/s, {ratio:.2f}x, cosine {cosine:.7f}", flush=True)
    return rows


def beauty_texts() -> list[str]:
    """The distinct texts of amazon2014/beauty that are not empty, in a fixed random order."""
    source = {"format": "sequences", "path": "amazon2014/beauty"}
    config = DomainConfig.model_validate({"name": "beauty", "source": source})
    parts = read_source(config.source, data_root()).items
    texts = sorted({text for part in parts for text in part.rows["text"].to_list()} - {""})
    return [texts[int(place)] for place in np.random.default_rng(0).permutation(len(texts))]


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="of every rival")
    parser.add_argument("--minilm-texts", type=int, default=2048, help="sample for MiniLM")
    parser.add_argument("--smollm2-texts", type=int, default=256, help="sample for SmolLM2")
    parser.add_argument("--repetitions", type=int, default=5, help="of each measurement")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    texts = beauty_texts()

    def encoders(base: str) -> dict[str, ItemEncoder]:
        return {
            dtype: ItemEncoder.load(
                EncoderConfig.model_validate(
                    {"base": base, "dtype": dtype, "max_tokens": MAX_TOKENS}
                )
            )
            for dtype in ("float32", "mixed")
        }

    minilm = encoders("minilm")
    folder = str(minilm["float32"].base.folder)
    with SentenceTransformers(folder, options.threads) as rival:
        first = compare(
            "sentence-transformers, MiniLM",
            texts[: options.minilm_texts],
            rival.encode,
            minilm,
            options.repetitions,
        )
    smollm2 = encoders("smollm2")
    second = compare(
        "plain transformers loop, SmolLM2-135M",
        texts[: options.smollm2_texts],
        lambda some: timed(lambda t: plain_loop(smollm2["float32"], t), some),
        smollm2,
        options.repetitions,
    )
    checks = [
        Check("MiniLM, mixed: least cosine", first["mixed"]["cosine"], LEAST_COSINE, "least"),
        Check("MiniLM, mixed / sentence-transformers", first["mixed"]["ratio"], 1.3, "least"),
        Check("SmolLM2, float32: least cosine", second["float32"]["cosine"], LEAST_COSINE, "least"),
        Check("SmolLM2, float32 / plain loop", second["float32"]["ratio"], 2.0, "least"),
    ]
    rows = [
        {"rival": rival, "dtype": dtype, **figures}
        for rival, found in (("sentence-transformers", first), ("plain loop", second))
        for dtype, figures in found.items()
    ]
    return finish("encode", checks, rows)


if __name__ == "__main__":
    sys.exit(main())
