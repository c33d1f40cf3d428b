"""One worker of real fine-tunings: run by torchrun, once for several of them."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fatal_touch import die_at_touch
from tiny_models import LatestAndMean, item_histories, item_pairs, item_texts

from item_llm import ItemLLMConfig, ItemPairs, finetune, next_item_pairs

FINETUNING = {
    "max_steps": 30,
    "pairs_per_step": 16,
    "learning_rate": 2e-2,
    "stage3_persistence_threshold": 0,
    "chunk_texts": 8,
}


def be_killed(kill: dict[str, int], checkpoints: Path) -> Callable[[int], None]:
    """SIGKILL of one rank: at a touch of the checkpoints' files, or after a step."""
    rank = torch.distributed.get_rank()
    if rank == kill["rank"] and "touch" in kill:
        die_at_touch(checkpoints, kill["touch"])

    def after(step: int) -> None:
        if rank == kill["rank"] and step == kill.get("step"):
            os.kill(os.getpid(), signal.SIGKILL)

    return after


class PowerCutError(Exception):
    pass


def main(base: str, out: Path, workers: int, jobs: list[dict[str, Any]]) -> None:
    """Train each of `jobs`: a name, settings, a folder of checkpoints, a step to stop at."""
    torch.set_num_threads(1)
    for job in jobs:
        config = ItemLLMConfig.model_validate(
            {
                "encoder": {"base": base} | job.get("encoder", {}),
                "lora": {"r": 4, "alpha": 8},
                "finetuning": FINETUNING | job["finetuning"],
            }
        )
        histories = config.finetuning.objective == "histories"
        losses: dict[int, float] = {}

        after = be_killed(job["kill"], Path(job["checkpoints"])) if "kill" in job else None

        def on_step(step: int, loss: float, rate: float) -> None:
            if after is not None:  # noqa: B023
                after(step)  # noqa: B023
            if step == job.get("stop"):  # noqa: B023
                raise PowerCutError
            losses[step] = loss  # noqa: B023

        report = {"losses": losses}
        try:
            result = finetune(
                config,
                next_item_pairs(*item_histories(500, seed=0))
                if histories
                else ItemPairs(*item_pairs(2000, seed=0)),
                ItemPairs(*item_pairs(job.get("held_out", 200), seed=1)),
                item_texts(),
                out / f"adapter-{job['name']}",
                workers=workers,
                on_step=on_step,
                checkpoint_dir=Path(job["checkpoints"]) if "checkpoints" in job else None,
                sequence_model=LatestAndMean if histories else None,
            )
            report["result"] = result.to_json()
        except PowerCutError:
            pass
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        (out / f"{workers}-{job['name']}-{rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4]))
    if torch.distributed.is_initialized():
        # gloo aborts a worker whose peer has left while it still waits for it.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
