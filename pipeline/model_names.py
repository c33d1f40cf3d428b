"""The models of a run by name: their order, what readers call them, what they are compared with."""

from __future__ import annotations

from collections.abc import Iterable

JOINT = "hydra_joint"
SINGLE = "hydra_single"
ORACLE = "oracle"

_LABELS = {
    "popularity": "Popularity",
    "popularity_7d": "Popularity 7 d",
    "item_knn": "Item kNN",
    "sasrec_bce": "SASRec BCE",
    "sasrec": "SASRec",
    "mamba2rec": "Mamba 2",
    "hstu": "HSTU",
    "hstu_time": "HSTU time",
    "hydra_ids": "Hydra ids",
    "hydra_frozen": "Hydra frozen",
    SINGLE: "Hydra single",
    JOINT: "Hydra joint",
}

DESCRIPTIONS = {
    "popularity": "how often an item was taken in training",
    "popularity_7d": "how often an item was taken in the 7 days before the target",
    "item_knn": "items that the same people took, cosine of co-occurrence",
    "sasrec_bce": "Transformer on ids as published: binary cross-entropy, one negative",
    "sasrec": "Transformer on ids, sampled softmax",
    "mamba2rec": "Mamba-2 on ids without an item stream, sampled softmax",
    "hstu": "pointwise SiLU attention on ids, sampled softmax",
    "hstu_time": "the same with a bias by the time between two items",
    "hydra_ids": "Hydra on each domain alone, ids without text",
    "hydra_frozen": "Hydra on each domain alone, untuned text vectors",
    SINGLE: "Hydra on each domain alone, text and ids",
    JOINT: "one Hydra on all domains, tuned text vectors and ids",
    ORACLE: "the simulator's own next-item distribution: the ceiling",
}


def label(model: str) -> str:
    """What readers call the model; a name unknown here stands for itself."""
    return _LABELS.get(model, "Oracle" if model == ORACLE else model)


def in_order(models: Iterable[str]) -> list[str]:
    """Baselines first, then ours from the plainest to the joint one, others, the oracle last.

    >>> in_order(["oracle", "mine", "hydra_joint", "popularity"])
    ['popularity', 'hydra_joint', 'mine', 'oracle']
    """
    known = list(_LABELS)

    def place(model: str) -> tuple[int, str]:
        if model == ORACLE:
            return len(known) + 1, model
        return known.index(model) if model in known else len(known), model

    return sorted(models, key=place)
