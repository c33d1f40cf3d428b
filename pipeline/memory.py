"""How much memory a run's trainings take of each worker: told by a plan, before anything is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from item_llm.base_models import PretrainedModel
from item_llm.memory import FinetuningMemory, finetuning_memory
from pipeline.architectures import Architecture, architecture_of, recommender
from pipeline.candidates import variants
from pipeline.config import JOINT_MODELS, TEXT_MODELS, ModelName, RunConfig
from user_model import Recommender
from user_model.memory import TrainingMemory, training_memory


@dataclass(frozen=True)
class RunMemory:
    """What one worker takes.

    Attributes:
        item_llm: of the fine-tuning; None where there is none.
        models: of each trained model; of candidates, the one that takes most.
    """

    item_llm: FinetuningMemory | None
    models: dict[ModelName, TrainingMemory]


def run_memory(config: RunConfig, models: Sequence[ModelName], *, tunes: bool) -> RunMemory:
    """Count the memory of each training of a run.

    Args:
        config: of the run; the base of its item LLM must be there if anything reads texts.
        models: those that are trained.
        tunes: whether the item LLM is fine-tuned.
    """
    workers = config.compute.workers
    llm = finetuning_memory(config.item_llm, workers, kept_by_autograd) if tunes else None
    width = 0
    if any(model in TEXT_MODELS for model in models):  # once: to find a base is to hash its weights
        width = PretrainedModel.find(config.item_llm.encoder.base).dim()
    return RunMemory(llm, {model: _of_model(model, config, width) for model in models})


def _of_model(model: ModelName, config: RunConfig, width: int) -> TrainingMemory:
    architecture = architecture_of(model, config)
    workers = config.compute.workers if model in JOINT_MODELS else 1
    sizes = [
        training_memory(
            _builder(model, variant, width), variant.training, workers, kept_by_autograd
        )
        for _, variant in variants(architecture, architecture.candidates)
    ]
    return max(sizes, key=lambda size: size.activations + size.weights)


def _builder(
    model: ModelName, architecture: Architecture, width: int
) -> Callable[[int], Recommender]:
    """Makes the model over so many items, with text vectors of `width`, on what runs here."""
    if hasattr(architecture, "backend"):
        architecture = architecture.model_copy(update={"backend": "auto"})

    def build(n_items: int) -> Recommender:
        texts = torch.randn(n_items, width) if model in TEXT_MODELS else None
        return recommender(model, architecture, n_items, texts)

    return build


def kept_by_autograd(compute: Callable[[], object], held: Iterable[torch.Tensor]) -> int:
    """Bytes that `compute` keeps for a backward pass, each storage once, without those of `held`.

    On the meta device nothing is allocated, and the figure is the same.
    """
    own = {tensor.untyped_storage()._cdata for tensor in held}
    kept: dict[int, torch.Tensor] = {}  # alive, so that no address is given twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = compute()
    del result
    return sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in own)
