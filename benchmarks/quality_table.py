"""A race's rows and settings as lines of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.quality_summary import Clock

Row = Mapping[str, Any]

_HEADS = ("model", "parameters", "non-embedding", "epochs", "s/epoch", "best (epoch)", "test")
_SHAPE = ("dim", "layers", "heads", "head_dim", "state_dim", "ffn_dim", "dropout")
_TRAINING = (
    "loss", "epochs", "patience", "validate_every", "lr", "min_lr_share", "batch_tokens",
    "negatives", "temperature",
)  # fmt: skip


def table(rows: Sequence[Row], clock: Clock) -> list[str]:
    """The summary's rows as a table; a dash where a quality was not reached.

    Args:
        rows: from `quality_summary.row`, one a model.
        clock: whose seconds are shown.
    """
    shares = [key for key in rows[0] if key.endswith(f"_{clock}_share")]
    names = [key.removesuffix(f"_{clock}_share") for key in shares]
    # `seconds` ends the names of the other clock's figures too.
    names = [name for name in names if not name.endswith("_cpu")]
    unit = "s" if clock == "seconds" else "CPU s"
    heads = [head.replace("s/", f"{unit}/") for head in _HEADS]
    heads += [f"{unit} to {name.replace('_', ' ')} (share)" for name in names]
    lines = [heads, ["---"] * len(heads)]
    lines += [[*_head(row, clock), *_times(row, names, clock)] for row in rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def settings(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line a model: the fields that its name or its kind sets, and the hash of all of them."""
    return [
        f"* `{record['name']}`: {_fields(record['config'], _SHAPE)}; "
        f"{_fields(record['config']['training'], _TRAINING)}; config {record['config_hash'][:12]}"
        for record in records
    ]


def _fields(config: Mapping[str, Any], names: Sequence[str]) -> str:
    given = [(name, config.get(name)) for name in names]
    # As published BCE draws one negative, whatever the field says.
    bce = config.get("loss") == "bce"
    kept = [(n, 1 if bce and n == "negatives" else v) for n, v in given if v is not None]
    return ", ".join(f"{name} {value}" for name, value in kept)


def _head(row: Row, clock: Clock) -> list[str]:
    test, share = row["test_ndcg@10"], row["non_embedding_share"]
    return [
        f"`{row['model']}`",
        f"{row['parameters']:,}",
        f"{row['non_embedding']:,}" + ("" if share is None else f" ({share:.1%})"),
        f"{row['epochs']} of {row['of_epochs']}",
        f"{row[clock] / row['epochs']:.2f}",
        f"{row['best_ndcg@10']:.4f} ({row['best_epoch']})",
        "-" if test is None else f"{test:.4f}",
    ]


def _times(row: Row, names: Sequence[str], clock: Clock) -> list[str]:
    found = ((row[f"{name}_{clock}"], row[f"{name}_{clock}_share"]) for name in names)
    return ["-" if time is None else f"{time:.1f} ({share:.1%})" for time, share in found]
