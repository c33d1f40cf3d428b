"""One worker of a real fine-tuning: run by torchrun, once for several ZeRO stages."""

import json
import sys
from pathlib import Path

import torch
from tiny_models import item_pairs, item_texts

from item_llm import ItemLLMConfig, ItemPairs, finetune


def main(base: str, out: Path, workers: int, stages: list[int]) -> None:
    torch.set_num_threads(1)
    for stage in stages:
        config = ItemLLMConfig.model_validate(
            {
                "encoder": {"base": base},
                "lora": {"r": 4, "alpha": 8},
                "finetuning": {
                    "max_steps": 30,
                    "pairs_per_step": 16,
                    "learning_rate": 2e-2,
                    "zero_stage": stage,
                    "stage3_persistence_threshold": 0,
                    "chunk_texts": 8,
                },
            }
        )
        losses: list[float] = []
        result = finetune(
            config,
            ItemPairs(*item_pairs(2000, seed=0)),
            ItemPairs(*item_pairs(200, seed=1)),
            item_texts(),
            out / f"adapter-{stage}",
            workers=workers,
            on_step=lambda step, loss, rate: losses.append(loss),  # noqa: B023
        )
        report = {"result": result.to_json(), "losses": losses}
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        (out / f"{workers}-{stage}-{rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    import os

    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4]))
