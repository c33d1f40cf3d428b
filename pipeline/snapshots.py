"""The item vectors of a corpus: written by the vectors stage, opened by training and ranking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from item_llm import Snapshot
from item_llm.text_keys import keys_of, order_of
from pipeline.corpus import Corpus
from pipeline.whole_files import read_json, write_json

_ENCODER = "encoder.json"
_VECTORS = "vectors"


def write_encoder(folder: Path, fingerprint: str, details: dict[str, Any]) -> Path:
    """Note which encoder the vectors are of; returns the folder to write the snapshot to."""
    write_json(folder / _ENCODER, {"fingerprint": fingerprint, **details})
    return folder / _VECTORS


def read_encoder(folder: Path) -> dict[str, Any]:
    """What was noted of the encoder: fingerprint, base, texts encoded and reused."""
    encoder: dict[str, Any] = read_json(folder / _ENCODER)
    return encoder


def open_vectors(folder: Path, corpus: Corpus) -> Snapshot:
    """Map the item vectors of a corpus: row i is the vector of global item i.

    The run store has compared the checksums of all bytes before a stage reads them.

    Raises:
        ValueError: they are damaged, or of other items, of another order or number of them.
    """
    fingerprint = read_encoder(folder)["fingerprint"]
    order = order_of(keys_of(fingerprint, corpus.texts))
    return Snapshot.open(folder / _VECTORS, fingerprint=fingerprint, order=order)
