"""What the curves of a race say: which quality each rival reached, when, and with what.

The reference of a quality is the model whose own best it is; a share is of what that model itself
needed. Seconds are of training alone, without validation, each model's own: by the wall, or of CPU
time, which other programs disturb least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any, Literal

from benchmarks.harness import Check
from benchmarks.quality_rivals import TEXT_KIND

Record = Mapping[str, Any]
Clock = Literal["seconds", "cpu_seconds"]

PARAMETER_BAR = 0.11
BCE_TIME_BAR = 0.07
SS_TIME_BAR = 1.0
TEXT_TIME_BAR = 0.4


@dataclass(frozen=True)
class Target:
    """A quality to reach.

    Attributes:
        name: sasrec_bce, sasrec_ss ..., as it stands in rows.
        ndcg: NDCG@10 on validation.
        reference: the record of the model whose best it is, or is a share of.
    """

    name: str
    ndcg: float
    reference: Record


def targets(records: Sequence[Record]) -> list[Target]:
    """SASRec's own best and 95% of it, then the best of SASRec + sampled softmax.

    A best is the largest of many noisy figures and may come late: 95% of it tells how much of the
    time went into the last of it.
    """
    found = []
    for kind, shares in (("sasrec_bce", (1.0, 0.95)), ("sasrec_ss", (1.0,))):
        if (record := _of_kind(records, kind)) is not None:
            for share in shares:
                name = kind if share == 1.0 else f"{kind}_{share:.0%}"
                found.append(Target(name, share * record["best"]["ndcg@10"], record))
    return found


def reached(record: Record, ndcg: float) -> Mapping[str, Any] | None:
    """The first validated point of the curve at this quality or above; None where there is none."""
    points = (p for p in record["curve"] if p["ndcg@10"] is not None and p["ndcg@10"] >= ndcg)
    return next(points, None)


def validated(record: Record) -> bool:
    """Whether a curve has a figure yet."""
    return any(point["ndcg@10"] is not None for point in record["curve"])


def row(record: Record, wanted: Sequence[Target]) -> dict[str, Any]:
    """A rival's figures, flat: None where a quality was not reached."""
    last, best = record["curve"][-1], record["best"]
    figures = {
        "model": record["name"],
        "parameters": record["parameters"]["total"],
        "non_embedding": record["parameters"]["non_embedding"],
        "non_embedding_share": _share_of_bce(record, wanted),
        "epochs": len(record["curve"]),
        "of_epochs": record["config"]["training"]["epochs"],
        "state": record["state"],
        "best_ndcg@10": best["ndcg@10"],
        "best_epoch": best["epoch"],
        "test_ndcg@10": best["test_ndcg@10"],
        "seconds": last["seconds"],
        "cpu_seconds": last["cpu_seconds"],
    }
    for target in wanted:
        figures |= _time_to(record, target)
    return figures


def checks(records: Sequence[Record], clock: Clock = "seconds") -> list[Check]:
    """The bars of the comparison: parameters and time to each SASRec's best.

    The time to SASRec BCE's best is that of the fastest Hydra within the bar of parameters. A
    model that is not there, or did not reach the quality, is NaN, which meets no bar.
    """
    unit = "seconds" if clock == "seconds" else "CPU seconds"
    found: list[Check] = []
    hydras = [record for record in records if record["kind"] == "hydra"]
    by_name = {target.name: target for target in targets(records)}
    if (bce := by_name.get("sasrec_bce")) is not None and hydras:
        there = [h for h in hydras if reached(h, bce.ndcg)]
        size = min((_size_share(h, bce) for h in there), default=nan)
        small = [h for h in there if _size_share(h, bce) <= PARAMETER_BAR]
        found += [
            Check("smallest Hydra at SASRec BCE's best: non-embedding parameters / its", size,
                  PARAMETER_BAR, "most"),
            Check(f"fastest Hydra of at most {PARAMETER_BAR:.0%} of them: {unit} / SASRec BCE's",
                  _least_time(small, bce, clock), BCE_TIME_BAR, "most"),
        ]  # fmt: skip
    strong = by_name.get("sasrec_ss")
    for kind, reads, bar in (("hydra", "", SS_TIME_BAR), (TEXT_KIND, " with text", TEXT_TIME_BAR)):
        rivals = [record for record in records if record["kind"] == kind]
        if strong is not None and rivals:
            name = f"fastest Hydra{reads} at SASRec + SS's best: {unit} / its"
            found.append(Check(name, _least_time(rivals, strong, clock), bar, "most"))
    return found


def _of_kind(records: Sequence[Record], kind: str) -> Record | None:
    """The first of a kind that was validated."""
    return next((r for r in records if r["kind"] == kind and validated(r)), None)


def _time_to(record: Record, target: Target) -> dict[str, Any]:
    names = ("epoch", "seconds", "cpu_seconds")
    mine, theirs = reached(record, target.ndcg), reached(target.reference, target.ndcg)
    assert theirs is not None
    found = {f"{target.name}_{name}": mine[name] if mine else None for name in names}
    for name in names[1:]:
        share = mine[name] / theirs[name] if mine else None
        found[f"{target.name}_{name}_share"] = share
    return found


def _share_of_bce(record: Record, wanted: Sequence[Target]) -> float | None:
    bce = next((target for target in wanted if target.name == "sasrec_bce"), None)
    return None if bce is None else _size_share(record, bce)


def _size_share(record: Record, target: Target) -> float:
    mine, theirs = record["parameters"], target.reference["parameters"]
    return float(mine["non_embedding"] / theirs["non_embedding"])


def _least_time(records: Sequence[Record], target: Target, clock: Clock) -> float:
    shares = [_time_to(record, target)[f"{target.name}_{clock}_share"] for record in records]
    return min((share for share in shares if share is not None), default=nan)
