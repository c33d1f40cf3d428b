"""What a run's stages grow with, and the runs that the growth is measured on."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import RunConfig

MIN_EPOCH_STEPS = 16  # of the training config


@dataclass(frozen=True)
class Sizes:
    """Of one run, summed over its domains.

    Attributes:
        read: interactions before cleaning.
        users: people, counted in each of their domains.
        items: of all catalogues.
        interactions: that are left.
        pairs: users x items, domain by domain: the scores of one ranking.
        texts: distinct ones, of so many `characters`.
        epochs, width, batch_tokens: of the user model.
        finetuning_texts: read by all steps together; `finetuning_batch` by one.
    """

    read: int
    users: int
    items: int
    interactions: int
    pairs: int
    texts: int
    characters: int
    epochs: int
    width: int
    batch_tokens: int
    finetuning_texts: int
    finetuning_batch: int

    @property
    def steps(self) -> int:
        """Steps of the user model."""
        return self.epochs * max(MIN_EPOCH_STEPS, -(-self.interactions // self.batch_tokens))

    @property
    def text_length(self) -> float:
        """Characters of a text."""
        return self.characters / self.texts


def shops(
    population: int, items: int, *, epochs: int = 2, width: int = 16, steps: int = 4, pairs: int = 8
) -> RunConfig:
    """Two simulated shops, run in one process.

    Args:
        population: people; 0.8 and 0.4 of them buy in the shops.
        items: of each shop.
        epochs: of the user model.
        width: of the user model.
        steps: of the fine-tuning.
        pairs: of one of these steps.
    """
    shop = {
        "format": "simulated",
        "population": population,
        "items": items,
        "mean_history": 8,
    }
    return RunConfig.model_validate(
        {
            "name": "scaling",
            "domains": [
                {"name": "books", "source": shop | {"catalogue": "books", "share": 0.8}},
                {"name": "garden", "source": shop | {"catalogue": "garden", "share": 0.4}},
            ],
            "models": ["popularity", "hydra_joint"],
            "pairs": {"max_held_out": 20},
            "item_llm": {
                "encoder": {"base": "minilm", "max_tokens": 32},
                "lora": {"r": 4},
                "finetuning": {"max_steps": steps, "pairs_per_step": pairs},
            },
            "user_model": {
                "dim": width,
                "layers": 1,
                "training": {"epochs": epochs, "patience": epochs, "negatives": 32},
            },
            "compute": {"workers": 1, "in_process": True},
        }
    )


FITTED: tuple[RunConfig, ...] = (
    shops(300, 100),
    shops(1_200, 100, steps=8),
    shops(300, 600, epochs=6),
    shops(900, 300, epochs=4, width=64, pairs=24),
    shops(1_800, 600, steps=8, pairs=24),
)
# Of another size than any that is fitted, and beyond them in people, items and interactions.
HELD_BACK: RunConfig = shops(2_600, 1_100, epochs=3, width=48, steps=12, pairs=20)
TINY_FITTED: tuple[RunConfig, ...] = (shops(200, 60), shops(600, 150))
TINY_HELD_BACK: RunConfig = shops(400, 100)
