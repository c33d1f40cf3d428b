"""What the stages of a run found out, gathered for the run card and for the report's curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.artifacts import read_json
from pipeline.item_vectors import ADAPTER_RESULT
from pipeline.recipe import Recipe
from pipeline.snapshots import read_encoder
from pipeline.stages import StageResult
from pipeline.user_models import CURVE


def details(recipe: Recipe, stages: Mapping[str, StageResult]) -> dict[str, Any]:
    """run.json's `adapter`, `cache` and `parameters`."""
    return {
        "adapter": _adapter(recipe, stages),
        "cache": _cache(recipe, stages),
        "parameters": _parameters(recipe, stages),
    }


def curves(recipe: Recipe, stages: Mapping[str, StageResult]) -> dict[str, Any]:
    """curves.json: the item LLM's losses, and each user model's by model and domain."""
    models: dict[str, dict[str, Any]] = {}
    for name in recipe.trained:
        _, model, domain = f"{name}.all".split(".")[:3]
        models.setdefault(model, {})[domain] = read_json(stages[name].artifact.path / CURVE)
    return {"item_llm": _finetuning(recipe, stages), "user_models": models}


def _finetuning(recipe: Recipe, stages: Mapping[str, StageResult]) -> dict[str, Any] | None:
    if recipe.item_llm is None:
        return None
    result: dict[str, Any] = read_json(stages["item_llm"].artifact.path / ADAPTER_RESULT)
    return result


def _adapter(recipe: Recipe, stages: Mapping[str, StageResult]) -> dict[str, str] | None:
    finetuning = _finetuning(recipe, stages)
    if finetuning is None:
        return None
    path = stages["item_llm"].artifact.path.name
    return {"sha256": finetuning["adapter_sha256"], "path": path}


def _cache(recipe: Recipe, stages: Mapping[str, StageResult]) -> dict[str, Any] | None:
    vectors = [stage for name, stage in sorted(recipe.vectors.items(), reverse=True)]
    return read_encoder(stages[vectors[0].name].artifact.path) if vectors else None


def _parameters(recipe: Recipe, stages: Mapping[str, StageResult]) -> dict[str, Any]:
    """Parameters of each model; of models trained domain by domain, those of the largest one."""
    largest: dict[str, dict[str, int]] = {}
    for name in recipe.trained:
        counts = stages[name].facts["parameters"]
        model = name.split(".")[1]
        if counts["total"] > largest.get(model, {"total": 0})["total"]:
            largest[model] = counts
    return largest
