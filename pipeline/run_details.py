"""What the stages of a run found out, gathered into the files of the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.corpus import Corpus
from pipeline.examples import load_examples, show
from pipeline.neighbours import NEIGHBOURS
from pipeline.prepare import CORPUS, DATA, QUARANTINE
from pipeline.ranking import METRICS
from pipeline.recipe import Recipe
from pipeline.report_files import RunFiles
from pipeline.report_order import domain_order, shown_model
from pipeline.snapshots import read_encoder
from pipeline.stage_names import parsed
from pipeline.stages import StageResult
from pipeline.user_models import CURVE
from pipeline.whole_files import read_json
from pipeline.workers.item_llm import ADAPTER_RESULT

_REFUSED_ROWS = 5  # of each domain, in data.json
_ROW_CHARS = 200


def gather(recipe: Recipe, stages: Mapping[str, StageResult], card: Mapping[str, Any]) -> RunFiles:
    """The files of the run's folder, from the outputs of its stages and its run card."""
    metrics: dict[str, Any] = read_json(stages["metrics"].artifact.path / METRICS)
    corpus = stages["corpus"].artifact.path
    data = read_json(corpus / DATA)
    data["split"] = card["config"]["split"]
    for name, domain in data["domains"].items():
        domain["size_group"] = metrics["domains"][name]["size_group"]
        domain["first_refused"] = first_refused(corpus / QUARANTINE / f"{name}.jsonl")
    examples = {
        "users": _example_users(recipe, stages, metrics),
        "neighbours": _neighbours(recipe, stages),
    }
    return RunFiles(metrics, dict(card), curves(recipe, stages), data, examples)


def first_refused(path: Path) -> list[dict[str, Any]]:
    """The first rows of a quarantine file, their text cut; none where nothing was refused."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in islice(lines, _REFUSED_ROWS)]
    return [row | {"row": str(row.get("row", ""))[:_ROW_CHARS]} for row in rows]


def details(recipe: Recipe, stages: Mapping[str, StageResult]) -> dict[str, Any]:
    """run.json's `adapter`, `cache`, `parameters` and `choices`."""
    return {
        "adapter": _adapter(recipe, stages),
        "cache": _cache(recipe, stages),
        "parameters": _parameters(recipe, stages),
        "choices": _choices(recipe, stages),
    }


def curves(recipe: Recipe, stages: Mapping[str, StageResult]) -> dict[str, Any]:
    """curves.json: the item LLM's losses, and each user model's by model and domain."""
    models: dict[str, dict[str, Any]] = {}
    for name in recipe.trained:
        model, domain = _model_and_domain(name)
        models.setdefault(model, {})[domain] = read_json(stages[name].artifact.path / CURVE)
    return {"item_llm": _finetuning(recipe, stages), "user_models": models}


def _example_users(
    recipe: Recipe, stages: Mapping[str, StageResult], metrics: Mapping[str, Any]
) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    for name in recipe.ranked:
        model = parsed(name).model
        found.setdefault(model, {}).update(load_examples(stages[name].artifact.path))
    model = shown_model(metrics, {parsed(name).model for name in recipe.trained})
    corpus = Corpus.open(stages["corpus"].artifact.path / CORPUS)
    return {"model": model, "users": show(corpus, found, model, domain_order(metrics))}


def _neighbours(recipe: Recipe, stages: Mapping[str, StageResult]) -> dict[str, Any] | None:
    if recipe.neighbours is None:
        return None
    found: dict[str, Any] = read_json(stages["neighbours"].artifact.path / NEIGHBOURS)
    return found


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
        model = parsed(name).model
        if counts["total"] > largest.get(model, {"total": 0})["total"]:
            largest[model] = counts
    return largest


def _choices(recipe: Recipe, stages: Mapping[str, StageResult]) -> dict[str, Any]:
    """What was tried for each model and domain ("all" together), where there was a choice."""
    choices: dict[str, dict[str, Any]] = {}
    for name in recipe.trained:
        model, domain = _model_and_domain(name)
        candidates = stages[name].facts.get("candidates", [])
        if len(candidates) > 1:
            choices.setdefault(model, {})[domain] = candidates
    return choices


def _model_and_domain(trained: str) -> tuple[str, str]:
    """Of a stage train.MODEL[.DOMAIN]; without a domain it is "all"."""
    _, model, domain = f"{trained}.all".split(".")[:3]
    return model, domain
