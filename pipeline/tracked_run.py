"""What the trackers are told of a whole run: its parameters, its curves and its final figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig
from pipeline.report_files import RunFiles
from pipeline.run_card import conditions
from pipeline.stage_names import train_stage
from pipeline.tracking.records import Figures, TrackedRun, flattened
from pipeline.tracking.tracking import Tracking

FINAL = "metrics"  # the stage that the final figures stand under
_EPOCH = ("loss", "ndcg@10", "lr", "seconds")
_OF_THE_END = ("adapter", "cache", "parameters", "seconds")


def tracked_run(config: RunConfig, folder: Path) -> TrackedRun:
    """The run as the trackers know it from the start: the run card's conditions."""
    return TrackedRun(config.name, folder, flattened(conditions(config)))


def tell_results(tracking: Tracking, files: RunFiles) -> None:
    """Tell what a run found: curves of stages that did not run now, final figures, the card's end.

    Args:
        tracking: has been told what this run's own workers measured.
        files: of the finished run.
    """
    for stage, curve in training_curves(files.curves):
        tracking.complete(stage, curve)
    tracking.log(FINAL, final_figures(files.metrics))
    known = {name: files.run[name] for name in _OF_THE_END if files.run.get(name) is not None}
    tracking.describe(flattened(known))


def training_curves(curves: Mapping[str, Any]) -> Iterable[tuple[str, list[Figures]]]:
    """(stage, its figures) for each training in curves.json, as its workers logged them."""
    llm = curves["item_llm"]
    if llm is not None:
        steps = [Figures({n: s[n] for n in ("loss", "lr")}, s["step"]) for s in llm["steps"]]
        yield "item_llm", [*steps, _held_out(llm["held_out"])]
    for model, scopes in curves["user_models"].items():
        for scope, points in scopes.items():
            stage = train_stage(model, None if scope == "all" else scope)
            yield stage, [_epoch(point) for point in points]


def final_figures(metrics: Mapping[str, Any]) -> Figures:
    """metrics.json's figures as books/hydra_joint/ndcg@10, without intervals."""
    found: dict[str, float] = {}
    for domain, content in metrics["domains"].items():
        for model, figures in content["models"].items():
            for name, value in figures.items():
                if isinstance(value, int | float):
                    found[f"{domain}/{model}/{name}"] = float(value)
    return Figures(found)


def _epoch(point: Mapping[str, Any]) -> Figures:
    values = {name: float(point[name]) for name in _EPOCH if point.get(name) is not None}
    return Figures(values, point["step"], point["epoch"])


def _held_out(figures: Mapping[str, Any]) -> Figures:
    """Held-out figures before and after fine-tuning; none where no pairs are held out."""
    return Figures(
        {
            f"held_out/{when}/{name}": float(value)
            for when in ("before", "after")
            for name, value in (figures[when] or {}).items()
            if isinstance(value, int | float)
        }
    )
