"""What a fine-tuning of the item LLM did, as reports and run cards read it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from item_llm.held_out import HeldOutMetrics


class StoppedError(RuntimeError):
    """A fine-tuning was told to stop; it goes on from the checkpoint that it wrote last."""


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning did; the same on every worker.

    Attributes:
        base: name of the base model.
        adapter: folder of the adapter.
        adapter_sha256: its hash.
        steps: optimizer steps, those before a resume included.
        pairs, held_out_pairs: pairs with two different texts.
        before, after: metrics on the held-out pairs; None without such pairs.
        mean_cosine: between the held-out items' vectors before and after; None without them.
        temperature: at the end.
        zero_stage, workers: how the training was sharded.
        optimizer_elements: elements of Adam's moments on each worker.
        optimizer_elements_unsharded: what each worker would hold without ZeRO.
        weight_elements: elements of all weights on each worker between passes.
        seconds: wall time of this call.
        skipped_steps: steps of this call that were left out, their gradient being no number.
    """

    base: str
    adapter: str
    adapter_sha256: str
    steps: int
    pairs: int
    held_out_pairs: int
    before: HeldOutMetrics | None
    after: HeldOutMetrics | None
    mean_cosine: float | None
    temperature: float
    zero_stage: int
    workers: int
    optimizer_elements: list[int]
    optimizer_elements_unsharded: int
    weight_elements: list[int]
    seconds: float
    skipped_steps: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values, metrics under the names that reports use."""
        metrics = {
            name: value.to_json() if value is not None else None
            for name, value in (("before", self.before), ("after", self.after))
        }
        return {**asdict(self), **metrics}
