"""The tables of a transfer evaluation in docs/results.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.estimates import COMPARED_BY
from pipeline.model_names import JOINT, SINGLE, label
from pipeline.progress import clock
from pipeline.report_buckets import in_reading_order
from pipeline.report_copy import copies
from pipeline.report_order import by_size
from pipeline.results import to_json
from pipeline.results_page import markdown_table, put_section
from pipeline.whole_files import write_text

_GROUPS = ("item", "taken", "history", "person", "tie")
_SHOWN = ("popularity", "item_knn", "sasrec", "hydra_ids", SINGLE, JOINT)  # of the buckets


def write_page(
    out: Path, name: str, metrics: Mapping[str, Any], seconds: Mapping[int, float], command: str
) -> Path:
    """Write results/transfer.NAME.json and its section of results.md; returns the page.

    Args:
        out: the folder of results.md and results/.
        name: of the evaluation.
        metrics: over all seeds.
        seconds: what the stages of each training seed took, one after the other.
        command: what makes it all again.
    """
    write_text(out / "results" / f"transfer.{name}.json", to_json(metrics))
    page = out / "results.md"
    put_section(page, f"transfer.{name}", section(name, metrics, seconds, command))
    return page


def section(
    name: str, metrics: Mapping[str, Any], seconds: Mapping[int, float], command: str
) -> str:
    """The section as Markdown: every model, what joint training does, and for whom."""
    parts = [
        f"## Transfer: {name}",
        f"    {command}",
        f"NDCG@10 over all items of the domain, {_seeds(list(seconds))}; n: test users. Brackets: "
        "95% interval of the difference, bootstrapped over users, paired.",
        copies(metrics).markdown,
    ]
    if sure := _significance(metrics):
        parts += [
            f"{label(JOINT)} minus {label(SINGLE)}; effect size: mean of the users' differences "
            "over their standard deviation; p of the bootstrap, adjusted over the domains (Holm).",
            sure,
        ]
    parts += filter(None, (_bucket_table(metrics, group) for group in _GROUPS))
    config, data = metrics["config_hash"][:12], metrics["data_fingerprint"][:12]
    took = ", ".join(f"{clock(spent)} (seed {seed})" for seed, spent in seconds.items())
    facts = f"config `{config}`, data `{data}`; all stages of a seed, one after the other: {took}"
    return "\n\n".join([*parts, facts])


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    return f"mean over seeds {', '.join(map(str, seeds))}"


def _significance(metrics: Mapping[str, Any]) -> str:
    rows = []
    for name in by_size(metrics):
        if delta := metrics["domains"][name]["deltas"].get(JOINT):
            mark = "negative transfer" if delta["negative_transfer"] else ""
            relative = "-" if delta["relative"] is None else f"{delta['relative']:+.1%}"
            cells = [name, f"{delta[COMPARED_BY]:+.4f}", relative, f"{delta['effect_size']:+.3f}"]
            rows.append([*cells, f"{delta['p_holm']:.4f}", mark])
    head = ["domain", "difference", "relative", "effect size", "p, Holm", ""]
    return markdown_table(head, rows) if rows else ""


def _bucket_table(metrics: Mapping[str, Any], group: str) -> str:
    rows = [
        [name, bucket, f"{found[bucket]['users']:,}", *_figures(found[bucket])]
        for name in by_size(metrics)
        if (found := metrics["domains"][name].get("buckets", {}).get(group))
        for bucket in in_reading_order(found)
        if found[bucket]["models"]
    ]
    head = ["domain", group, "n", *map(label, _SHOWN), "joint - single [95%]"]
    return markdown_table(head, rows) if rows else ""


def _figures(bucket: Mapping[str, Any]) -> list[str]:
    """Each shown model's NDCG@10 in a bucket, and the difference."""
    models, delta = bucket["models"], bucket["deltas"].get(JOINT)
    cells = [f"{models[m][COMPARED_BY]:.4f}" if m in models else "-" for m in _SHOWN]
    if delta is None:
        return [*cells, "-"]
    low, high = delta["ci95"]
    return [*cells, f"{delta[COMPARED_BY]:+.4f} [{low:+.4f}, {high:+.4f}]"]
