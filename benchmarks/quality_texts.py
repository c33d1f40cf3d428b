"""The item vectors that rivals with text read, and what it took to encode them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from item_llm import EncoderConfig, load_encoder
from item_llm.cache import EmbeddingCache
from pipeline.corpus import Corpus
from pipeline.snapshots import write_encoder
from pipeline.whole_files import read_json, write_json

_MAX_TOKENS = 48  # titles; our choice
_COST = "cost.json"


@dataclass(frozen=True)
class ItemTexts:
    """Vectors of all items, by an encoder that was not tuned on the data.

    Attributes:
        folder: of the vectors, as the pipeline's stage leaves them.
        fingerprint: of the encoder.
        cost: base, distinct texts, and the seconds and CPU seconds that encoding them took when it
            was done, loading the encoder included.
    """

    folder: Path
    fingerprint: str
    cost: dict[str, object]

    @classmethod
    def prepare(cls, corpus: Corpus, base: str, folder: Path) -> ItemTexts:
        """Encode the corpus's texts below `folder`; what is there of them is not encoded again.

        Raises:
            ValueError: the encoder cannot be found.
        """
        wall, cpu = time.perf_counter(), time.process_time()
        encoder = load_encoder(EncoderConfig(base=base, max_tokens=_MAX_TOKENS))
        cache = EmbeddingCache.open(folder / "cache", encoder.fingerprint, encoder.dim)
        texts = list(dict.fromkeys(corpus.texts))
        if missing := cache.missing(texts):
            cache.refresh(missing, encoder)
            cost = {"base": base, "texts": len(missing), "seconds": time.perf_counter() - wall}
            write_json(folder / _COST, cost | {"cpu_seconds": time.process_time() - cpu})
        vectors = write_encoder(folder, encoder.fingerprint, {"base": base})
        cache.snapshot(corpus.texts, vectors)
        return cls(folder, encoder.fingerprint, read_json(folder / _COST))
