"""What tuning did to the item vectors: the nearest items of a few, before and after LoRA.

Encoding a whole catalogue a second time, with the untuned encoder, would cost as much as the run's
own vectors. So a few domains, some of their items and the items asked for are chosen by fixed
hashes, and both encoders are compared on these alone.

Legend: C items of one domain's pool, d vector width, Q items asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from item_llm import EncoderConfig, load_encoder
from pipeline.corpus import Corpus, DomainInfo
from pipeline.examples import item
from pipeline.snapshots import open_vectors
from pipeline.stable_hash import hash_text, hash_texts, mixed
from pipeline.whole_files import write_json

NEIGHBOURS = "neighbours.json"
DOMAINS = 3
POOL = 100  # items of a domain among which neighbours are looked for
ASKED = 2  # items of a domain whose neighbours are shown
NEAREST = 5
_SEED = hash_text("neighbours")

Float32s = NDArray[np.float32]


@dataclass(frozen=True)
class Pool:
    """Items of one domain, all with a text and no two with the same: global positions int64 [C].

    The first `ASKED` of them are those whose neighbours are shown.
    """

    domain: DomainInfo
    items: NDArray[np.int64]


def write_neighbours(
    output: Path, *, corpus: Path, tuned: Path, untuned: Path | None, encoder: EncoderConfig
) -> None:
    """Write neighbours.json: for each item asked for its nearest under both encoders.

    Args:
        output: the folder to write to.
        corpus: the corpus's folder.
        tuned: the folder of the tuned encoder's vectors of the whole corpus.
        untuned: the same of the untuned one; None: encode the pools' texts here.
        encoder: the untuned encoder.
    """
    opened = Corpus.open(corpus)
    pools = choose_pools(opened)
    after = open_vectors(tuned, opened)
    before = _encoded(opened, pools, encoder) if untuned is None else _rows(opened, pools, untuned)
    items = [
        shown
        for pool, before_Cd in zip(pools, before, strict=True)
        for shown in compare(opened, pool, before_Cd, after.rows(pool.items))
    ]
    write_json(output / NEIGHBOURS, {"items": items})


def choose_pools(corpus: Corpus) -> list[Pool]:
    """The domains with the smallest hash of their name, and of each the items of smallest hash.

    Domains in which fewer than two items have a text of their own are passed over.
    """
    names = hash_texts(domain.name for domain in corpus.domains)
    order = np.argsort(mixed(_SEED, names), kind="stable")
    pools = (_pool(corpus, corpus.domains[place]) for place in order)
    return list(islice((pool for pool in pools if len(pool.items) > 1), DOMAINS))


def compare(
    corpus: Corpus, pool: Pool, before_Cd: Float32s, after_Cd: Float32s
) -> list[dict[str, Any]]:
    """Neighbours of the first items of a pool.

    Args:
        corpus: for ids and texts.
        pool: C items.
        before_Cd: float32 [C, d] unit vectors of the untuned encoder.
        after_Cd: the same of the tuned one; its d may differ.

    Returns:
        For each item `domain`, `item`, `text`, `among` (how many others were compared) and
        `of` (the domain's items), and `before` and `after`: items with `cosine`, nearest first.
    """
    return [
        item(corpus, int(pool.items[place]))
        | {"among": len(pool.items) - 1, "of": pool.domain.n_items}
        | {"before": _nearest(corpus, pool, before_Cd, place)}
        | {"after": _nearest(corpus, pool, after_Cd, place)}
        for place in range(min(ASKED, len(pool.items)))
    ]


def _encoded(corpus: Corpus, pools: Sequence[Pool], config: EncoderConfig) -> list[Float32s]:
    encoder = load_encoder(config)
    return [encoder.encode([corpus.texts[int(place)] for place in pool.items]) for pool in pools]


def _rows(corpus: Corpus, pools: Sequence[Pool], folder: Path) -> list[Float32s]:
    snapshot = open_vectors(folder, corpus)
    return [snapshot.rows(pool.items) for pool in pools]


def _pool(corpus: Corpus, domain: DomainInfo) -> Pool:
    places = range(domain.first_item, domain.first_item + domain.n_items)
    ids = hash_texts(corpus.item_ids[place] for place in places)
    order = np.argsort(mixed(_SEED, hash_text(domain.name), ids), kind="stable")
    chosen: dict[str, int] = {}
    for place in order + domain.first_item:
        if text := corpus.texts[int(place)]:
            chosen.setdefault(text, int(place))
        if len(chosen) == POOL:
            break
    return Pool(domain, np.array(list(chosen.values()), dtype=np.int64))


def _nearest(
    corpus: Corpus, pool: Pool, vectors_Cd: Float32s, asked: int
) -> Sequence[Mapping[str, Any]]:
    # Rounded before they are ordered: a last bit that depends on threads decides nothing.
    cosines_C = (vectors_Cd.astype(np.float64) @ vectors_Cd[asked].astype(np.float64)).round(4)
    cosines_C[asked] = -np.inf
    order = np.argsort(-cosines_C, kind="stable")[: min(NEAREST, len(pool.items) - 1)]
    return [
        item(corpus, int(pool.items[place])) | {"cosine": float(cosines_C[place])}
        for place in order
    ]
