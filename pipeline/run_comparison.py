"""Runs against the first of them: every model in every domain, paired by user where that is sound.

A difference has an interval only if both runs ranked the same targets of the same users: equal
data, equal split, equal masking, and ranks that are still in the run store. Otherwise the plain
difference is given, and the reason why it is no more than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.estimates import COMPARED_BY
from pipeline.metrics import Ranks, ndcg
from pipeline.model_names import in_order
from pipeline.paths import project_root, resolve
from pipeline.ranks_file import load_ranks
from pipeline.report_files import RunFiles
from pipeline.report_order import by_size
from pipeline.stage_names import is_ranking, parsed
from pipeline.statistics import Estimate, Interval, macro_average, named_seed, paired_difference

_CUT_OFF = 10
_DIGITS = 1e-5  # of a figure that metrics.json gives with 6 significant digits

RanksOf = Mapping[str, Mapping[str, Ranks]]  # domain -> model


@dataclass(frozen=True)
class Run:
    """One run to compare: what readers call it, and its files."""

    name: str
    folder: Path
    files: RunFiles


@dataclass(frozen=True)
class RunDifference:
    """NDCG@10 of one model in one domain or group, in the first run and in another.

    Attributes:
        place: the domain's name, or "all", "large", "small".
        is_group: whether it is a mean over domains.
        interval: of the paired difference, 95%; None where the runs cannot be paired.
    """

    model: str
    place: str
    is_group: bool
    first: float
    other: float
    interval: Interval | None

    @property
    def value(self) -> float:
        """The other run minus the first."""
        return self.other - self.first


@dataclass(frozen=True)
class RunComparison:
    """One run against the first.

    Attributes:
        rows: by model, then domains by size, then groups.
        unpaired: why there are no intervals; None if there are.
    """

    first: Run
    other: Run
    rows: Sequence[RunDifference]
    unpaired: str | None


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs by the names of their folders; equal names get a number.

    Raises:
        ValueError: a folder is not that of a finished run.
    """
    runs: list[Run] = []
    for folder in folders:
        taken = sum(run.folder.name == folder.name for run in runs)
        name = f"{folder.name} ({taken + 1})" if taken else folder.name
        runs.append(Run(name, folder, RunFiles.read(folder)))
    return runs


def compare(first: Run, other: Run) -> RunComparison:
    """Every model that both runs have, in every domain and group that both have."""
    unpaired = why_not_paired(first, other)
    estimates: dict[tuple[str, str], Estimate] = {}
    if unpaired is None:
        try:
            estimates = _estimates(first, other)
        except _NoRanksError as error:
            unpaired = str(error)
    rows = [
        RunDifference(
            model,
            place,
            is_group,
            before[model][COMPARED_BY],
            after[model][COMPARED_BY],
            estimates[place, model].interval if (place, model) in estimates else None,
        )
        for place, is_group, before, after in _places(first.files.metrics, other.files.metrics)
        for model in in_order(set(before) & set(after))
    ]
    models = in_order({row.model for row in rows})
    rows.sort(key=lambda row: models.index(row.model))  # stable: places keep their order
    return RunComparison(first, other, rows, unpaired)


def why_not_paired(first: Run, other: Run) -> str | None:
    """Why the runs did not rank the same targets; None if they did."""
    a, b = first.files, other.files
    if a.metrics["data_fingerprint"] != b.metrics["data_fingerprint"]:
        prints = [files.metrics["data_fingerprint"][:12] for files in (a, b)]
        return f"their data differ (fingerprints {prints[0]} and {prints[1]})"
    splits = [_split(files) for files in (a, b)]
    if splits[0] != splits[1]:
        return f"their splits differ ({_listed(splits[0])} and {_listed(splits[1])})"
    masks = [files.metrics["evaluation"]["mask_seen"] for files in (a, b)]
    if masks[0] != masks[1]:
        return f"evaluation.mask_seen differs ({masks[0]} and {masks[1]})"
    return None


class _NoRanksError(ValueError):
    """The ranks of a run cannot be had; the message is the end of a sentence."""


def _estimates(first: Run, other: Run) -> dict[tuple[str, str], Estimate]:
    """By (domain or group, model): the paired difference, as metrics.json is estimated."""
    ranks = (_ranks(first), _ranks(other))
    metrics = first.files.metrics
    config = metrics["evaluation"]
    found: dict[tuple[str, str], Estimate] = {}
    for domain in metrics["domains"]:
        a, b = (of[domain] for of in ranks)
        for model in set(a) & set(b):
            found[domain, model] = paired_difference(
                ndcg(b[model], _CUT_OFF),
                ndcg(a[model], _CUT_OFF),
                config["bootstrap_resamples"],
                named_seed(config["seed"], domain),
            )
    for group, names in _groups(metrics).items():
        for model in {model for _, model in found}:
            if all((name, model) in found for name in names):
                found[group, model] = macro_average([found[name, model] for name in names])
    return found


def _ranks(run: Run) -> RanksOf:
    """The run's ranks from its store; wherever that is found, they must give the run's figures."""
    stores = [
        resolve(run.files.run["config"]["store"], project_root()),
        run.folder.parent / ".store",  # a whole runs/ folder may have been moved
    ]
    found: dict[str, dict[str, Ranks]] = {name: {} for name in run.files.metrics["domains"]}
    for stage in run.files.run["stages"]:
        if not is_ranking(stage["name"]):
            continue
        name = Path(stage["path"]).name  # a name below the store, whatever it says
        folder = next((store / name for store in stores if (store / name).is_dir()), None)
        if folder is None:
            raise _NoRanksError(
                f"the ranks of {run.name} are no longer in its store ({name} is neither in "
                f"{stores[0]} nor in {stores[1]})"
            )
        for domain, ranks in load_ranks(folder).items():
            found[domain][parsed(stage["name"]).model] = ranks
    _check(run, found)
    return found


def _check(run: Run, found: RanksOf) -> None:
    for name, domain in run.files.metrics["domains"].items():
        for model, figures in domain["models"].items():
            ranks = found[name].get(model)
            if ranks is None or not np.isclose(
                ndcg(ranks, _CUT_OFF).mean(), figures[COMPARED_BY], rtol=_DIGITS
            ):
                raise _NoRanksError(
                    f"the ranks of {model} in {name} that {run.name} names in its store do not "
                    "give its figures"
                )


def _places(
    first: Mapping[str, Any], other: Mapping[str, Any]
) -> Iterable[tuple[str, bool, Mapping[str, Any], Mapping[str, Any]]]:
    """Place, whether it is a group, and the models' figures in both runs."""
    for name in by_size(first):
        if name in other["domains"]:
            models = (of["domains"][name]["models"] for of in (first, other))
            yield name, False, *models
    for group, names in _groups(first).items():
        # Of one domain it is the domain again; over other domains it cannot be compared.
        if len(names) > 1 and names == _groups(other).get(group):
            yield group, True, first["groups"][group], other["groups"][group]


def _groups(metrics: Mapping[str, Any]) -> dict[str, list[str]]:
    domains = metrics["domains"]
    members = {
        group: sorted(n for n in domains if group in ("all", domains[n]["size_group"]))
        for group in ("large", "small", "all")
    }
    return {group: names for group, names in members.items() if names}


def _split(files: RunFiles) -> dict[str, Any]:
    """What a run's split says; fields that do nothing are none, an older run lacks some of them."""
    split = files.data.get("split") or {}
    return {name: value for name, value in split.items() if value not in (None, 0, {})}


def _listed(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items())
