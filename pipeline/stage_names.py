"""What a model's stages are called: train.MODEL[.DOMAIN] and rank.MODEL[.DOMAIN].

Without a domain it is the stage of all domains together. Names of models have no dot in them;
those of domains may.
"""

from __future__ import annotations

from typing import NamedTuple

_TRAIN, _RANK = "train", "rank"


class ModelStage(NamedTuple):
    """Whose stage it is; `domain` is None where it is that of all domains."""

    kind: str
    model: str
    domain: str | None


def train_stage(model: str, domain: str | None = None) -> str:
    """The stage that trains a model."""
    return f"{_TRAIN}.{scope(model, domain)}"


def rank_stage(model: str, domain: str | None = None) -> str:
    """The stage that ranks a model's test targets."""
    return f"{_RANK}.{scope(model, domain)}"


def scope(model: str, domain: str | None) -> str:
    """MODEL, or MODEL.DOMAIN."""
    return model if domain is None else f"{model}.{domain}"


def is_training(name: str) -> bool:
    """Whether it is the name of a stage that trains a model."""
    return name.startswith(f"{_TRAIN}.")


def is_ranking(name: str) -> bool:
    """Whether it is the name of a stage that ranks a model's test targets."""
    return name.startswith(f"{_RANK}.")


def parsed(name: str) -> ModelStage:
    """The parts of the name of a model's stage.

    >>> parsed("rank.sasrec.de.books")
    ModelStage(kind='rank', model='sasrec', domain='de.books')
    """
    assert is_training(name) or is_ranking(name), f"{name} is no stage of a model"
    kind, model, *domain = name.split(".", 2)
    return ModelStage(kind, model, domain[0] if domain else None)
