"""accelerate and DeepSpeed ZeRO around one module, on GPUs (nccl) or CPUs (gloo).

What CPUs need, each found the hard way: DeepSpeed must be told of the CPU before it is imported;
its shared-memory collectives and its Adam would compile C++ for minutes, so the first are switched
off and the optimizer is torch's; accelerate takes a CPU for plain data parallelism unless the
backend is named, so what came out is asserted.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

if TYPE_CHECKING:
    from item_llm.finetuning_config import FinetuningConfig

# Weights of other workers' shards that ZeRO-3 holds at most; DeepSpeed's own default.
GATHERED_ELEMENTS = 10**9


@contextmanager
def process_group(workers: int) -> Iterator[None]:
    """Use the caller's process group (or torchrun's environment); for one worker make one.

    Raises:
        ValueError: the group has another number of processes than `workers`.
    """
    ours = not dist.is_initialized()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if not torch.cuda.is_available():
            stack.enter_context(_environment({"DS_ACCELERATOR": "cpu"}))
        if ours:
            _initialise(Path(folder) / "store")
            stack.callback(_destroy)
        if dist.get_world_size() != workers:
            raise ValueError(
                f"fine-tuning was asked for {workers} workers, but the process group has "
                f"{dist.get_world_size()}: start as many processes, or change the number"
            )
        rank = str(dist.get_rank())
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(workers)}
        stack.enter_context(_environment(names))
        stack.enter_context(_environment({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}))
        yield


@contextmanager
def _environment(defaults: dict[str, str]) -> Iterator[None]:
    """Set variables that are not set yet (accelerate and DeepSpeed ask for them), for a while."""
    ours = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def worker_device() -> torch.device:
    """The device that this worker's process group speaks for."""
    if dist.get_backend() == "nccl":
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return torch.device("cpu")


def _initialise(store: Path) -> None:
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if "RANK" in os.environ and "MASTER_ADDR" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, init_method=f"file://{store}", rank=0, world_size=1)


def _destroy() -> None:
    """End the process group, and DeepSpeed's memory of it if DeepSpeed was ever used."""
    if "deepspeed" in sys.modules:
        import deepspeed.comm

        if deepspeed.comm.is_initialized():
            deepspeed.comm.destroy_process_group()
            return
    dist.destroy_process_group()


class ShardedModule:
    """A module whose trainable parameters, gradients or weights are sharded over the workers.

    With `bfloat16` all weights are that, and the optimizer moves float32 copies of what is trained,
    which ZeRO shards from stage 1 on; the copies are what is read, saved and resumed from.

    Attributes:
        module: the DeepSpeed engine: call it, so that ZeRO-3 fetches weights.
        optimizer: torch's AdamW, over this worker's shard.
    """

    def __init__(
        self, model: nn.Module, config: FinetuningConfig, *, bfloat16: bool = False
    ) -> None:
        from accelerate import Accelerator, DeepSpeedPlugin, InitProcessGroupKwargs
        from accelerate.state import AcceleratorState
        from accelerate.utils import DistributedType
        from deepspeed.ops import __compatible_ops__
        from deepspeed.utils import logger

        logger.setLevel(logging.WARNING)
        __compatible_ops__["deepspeed_shm_comm"] = False
        AcceleratorState._reset_state(reset_partial_state=True)  # of a training that failed
        self._trainable = [p for p in model.parameters() if p.requires_grad]
        self._bfloat16 = bfloat16
        settings = _deepspeed_config(config, self.trainable_elements())
        settings["bf16"] = {"enabled": bfloat16}
        plugin = DeepSpeedPlugin(hf_ds_config=settings, zero3_init_flag=False)
        self._accelerator = Accelerator(
            mixed_precision="bf16" if bfloat16 else "no",
            deepspeed_plugin=plugin,
            kwargs_handlers=[InitProcessGroupKwargs(backend=dist.get_backend())],
        )
        assert self._accelerator.distributed_type == DistributedType.DEEPSPEED
        assert self._accelerator.num_processes == dist.get_world_size()
        # ZeRO leaves out by itself, and in silence, an update whose gradient is no number.
        kind = _CarefulAdamW if config.zero_stage == 0 else torch.optim.AdamW
        self.optimizer = kind(
            self._trainable, lr=config.learning_rate, weight_decay=config.weight_decay
        )
        exact = _trainable_values(model) if bfloat16 else {}
        self.module, _ = self._accelerator.prepare(model, self.optimizer)
        assert self.module.zero_optimization_stage() == config.zero_stage
        self._set_copies(exact)

    @property
    def device(self) -> torch.device:
        """Where this worker computes."""
        return torch.device(self._accelerator.device)

    def close(self) -> None:
        """Forget accelerate's process-wide state, so that another module can be trained."""
        from accelerate.state import AcceleratorState

        self.module.destroy()
        AcceleratorState._reset_state(reset_partial_state=True)

    def backward(self, loss: torch.Tensor, *, last: bool, learning_rate: float) -> None:
        """Add a micro-batch's gradients; with `last`, clip them and step."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self._accelerator.gradient_state._set_sync_gradients(last)
        self._accelerator.backward(loss)

    def gradient_is_finite(self) -> bool:
        """Whether the last step's gradient was; if not, no weight and no moment has changed."""
        if isinstance(self.optimizer, _CarefulAdamW):
            return self.optimizer.was_finite
        norm = float(self.module.get_global_grad_norm())
        return math.isfinite(norm) and norm >= 0  # groups of parameters tell -1 for no number

    def named_trainable(self) -> list[tuple[str, Any]]:
        """Trainable parameters with their names, as ZeRO has them, in the module's order."""
        return [(k, p) for k, p in self.module.module.named_parameters() if p.requires_grad]

    def whole_parameters(self) -> dict[str, torch.Tensor]:
        """Trainable parameters by name, whole, on the CPU; every worker must call it."""
        import deepspeed
        from deepspeed.utils import safe_get_full_fp32_param

        named = dict(self.named_trainable())
        if self._bfloat16:
            return {k: safe_get_full_fp32_param(p).cpu().clone() for k, p in named.items()}
        sharded = [p for p in named.values() if hasattr(p, "ds_id")]
        with deepspeed.zero.GatheredParameters(sharded, modifier_rank=None, enabled=bool(sharded)):
            return {k: p.detach().float().cpu().clone() for k, p in named.items()}

    def _set_copies(self, exact: Mapping[str, torch.Tensor]) -> None:
        """Give the float32 copies these values, which DeepSpeed made of rounded weights."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

        parameters = dict(self.named_trainable())
        for name, value in exact.items():
            parameter, flat = parameters[name], value.flatten().to(self.device)
            if hasattr(parameter, "ds_tensor"):  # stage 3: the last shard is padded
                size = parameter.ds_tensor.numel()
                padded = torch.nn.functional.pad(flat, (0, size * dist.get_world_size()))
                safe_set_local_fp32_param(parameter, padded.narrow(0, size * dist.get_rank(), size))
            else:
                safe_set_full_fp32_param(parameter, flat)

    def optimizer_shards(self) -> list[torch.Tensor]:
        """Flat parameters of this worker's shard, the keys of the optimizer's state."""
        stage3 = getattr(self.module.optimizer, "fp32_partitioned_groups_flat", None)
        if stage3 is not None:
            return list(stage3)
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def optimizer_elements(self) -> int:
        """Elements of Adam's moments that this worker holds."""
        tensors = (t for state in self.optimizer.state.values() for t in state.values())
        return sum(t.numel() for t in tensors if torch.is_tensor(t) and t.dim() > 0)

    def weight_elements(self) -> int:
        """Elements of all weights that this worker holds between passes."""
        if self.module.zero_optimization_stage() == 3:
            self.module.empty_partition_cache()  # small models stay gathered while there is room
        return sum(
            p.ds_tensor.numel() if _is_split(p) else p.numel()
            for p in self.module.module.parameters()
        )

    def trainable_elements(self) -> int:
        """Elements of all trainable parameters together."""
        return sum(getattr(p, "ds_numel", p.numel()) for p in self._trainable)


class _CarefulAdamW(torch.optim.AdamW):
    """AdamW that changes nothing where a gradient is no number; all workers have the same."""

    was_finite = True

    def step(self, closure: Any = None) -> Any:
        """One update, or none."""
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        self.was_finite = all(bool(torch.isfinite(g).all()) for g in gradients if g is not None)
        return super().step(closure) if self.was_finite else None


def _trainable_values(model: nn.Module) -> dict[str, torch.Tensor]:
    """Trainable parameters by name, float32, copied."""
    named = model.named_parameters()
    return {name: p.detach().float().clone() for name, p in named if p.requires_grad}


def _is_split(parameter: Any) -> bool:
    """Whether ZeRO-3 has this weight in shards (small ones stay whole)."""
    return hasattr(parameter, "ds_id") and parameter.numel() != parameter.ds_numel


def _deepspeed_config(config: FinetuningConfig, trainable: int) -> dict[str, Any]:
    parts = config.gradient_accumulation
    return {
        "train_micro_batch_size_per_gpu": config.pairs_per_step // dist.get_world_size() // parts,
        "gradient_accumulation_steps": parts,
        "gradient_clipping": config.gradient_clip,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
        "zero_optimization": {
            "stage": config.zero_stage,
            "contiguous_gradients": True,
            "overlap_comm": False,
            # A buffer of so many elements is taken at once, by default 2 GB for a few MB of LoRA.
            "reduce_bucket_size": trainable,
            "stage3_param_persistence_threshold": config.stage3_persistence_threshold,
            "stage3_max_live_parameters": GATHERED_ELEMENTS,
        },
    }
