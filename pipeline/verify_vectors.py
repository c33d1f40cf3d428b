"""Are the stored vectors those of their texts? A sample is encoded again and compared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from item_llm.cache import EmbeddingCache
from item_llm.item_keys import Catalogue
from item_llm.prompts import normalise_text
from item_llm.refresh import Encoded
from item_llm.text_keys import keys_of

_LEAST_COSINE = 0.9999  # of a stored vector to a fresh one of its text; our choice [D]


def sample(count: int, cache: EmbeddingCache, catalogue: Catalogue) -> list[str]:
    """Distinct texts that have a vector, `count` of them or all; another draw each version."""
    missing = set(cache.missing(catalogue.texts))
    distinct = dict.fromkeys(map(normalise_text, catalogue.texts))
    stored = [text for text in distinct if text not in missing]
    draw = np.random.default_rng(cache.version)
    chosen = draw.choice(len(stored), min(count, len(stored)), replace=False)
    return [stored[int(place)] for place in np.sort(chosen)]


def compare(cache: EmbeddingCache, texts: list[str], batches: Iterable[Encoded]) -> dict[str, Any]:
    """Compare stored vectors with fresh ones; returns how many, and the least cosine.

    Args:
        cache: has a vector for each text.
        texts: distinct, normalised.
        batches: the texts, encoded again.

    Raises:
        ValueError: a stored vector is not that of its text, or a text could not be encoded again.
    """
    least = 1.0
    compared = 0
    for batch in batches:
        for text, reason in batch.refused:
            raise ValueError(f"{text[:80]!r} has a vector, but cannot be encoded again: {reason}")
        cosines = _cosines(cache.vectors(keys_of(cache.fingerprint, batch.texts)), batch.vectors)
        compared += len(cosines)
        least = min(least, float(cosines.min(initial=1.0)))
        if least < _LEAST_COSINE:
            raise ValueError(
                f"the stored vector of {batch.texts[int(cosines.argmin())][:80]!r} has cosine "
                f"{least:.6f} to a fresh one, expected {_LEAST_COSINE} or more; delete "
                f"{cache.folder} and refresh again"
            )
    assert compared == len(texts), f"{compared} of {len(texts)} texts came back"
    return {"texts": compared, "least_cosine": round(least, 7)}


def _cosines(stored: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """Cosine of each row with the other's, [n]."""
    lengths = np.linalg.norm(stored, axis=1) * np.linalg.norm(fresh, axis=1)
    cosines: np.ndarray = (stored * fresh).sum(axis=1) / lengths
    return cosines
