"""Workers that learn one model together: sums of gradients over torch.distributed."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Workers:
    """One process among those that train one model together.

    With size > 1 the caller has initialised torch.distributed (gloo or nccl) with the same rank
    and size.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(
                f"rank: got {self.rank} of {self.size} workers, expected 0 to size - 1"
            )

    def check(self) -> None:
        """Raise ValueError unless torch.distributed agrees with rank and size."""
        if self.size == 1:
            return
        from torch import distributed

        if not distributed.is_initialized():
            raise ValueError(
                f"workers: got {self.size} and no process group; call "
                "torch.distributed.init_process_group in each worker before training"
            )
        found = distributed.get_rank(), distributed.get_world_size()
        if found != (self.rank, self.size):
            raise ValueError(
                f"workers: got rank {self.rank} of {self.size}, the process group has rank "
                f"{found[0]} of {found[1]}; pass the group's own"
            )

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the workers, in one exchange."""
        if self.size == 1:
            return
        from torch import distributed

        flat = torch.cat([t.reshape(-1) for t in tensors])
        distributed.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def from_first(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by that of worker 0."""
        if self.size == 1:
            return
        from torch import distributed

        for tensor in tensors:
            distributed.broadcast(tensor, src=0)

    def agree(self, value: float) -> float:
        """Return worker 0's value."""
        if self.size == 1:
            return value
        from torch import distributed

        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        box = torch.tensor([value], dtype=torch.float64, device=device)
        self.from_first([box])
        return float(box)

    def any(self, flag: bool) -> bool:
        """Return whether any worker's flag is true."""
        if self.size == 1:
            return flag
        from torch import distributed

        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        box = torch.tensor([int(flag)], device=device)
        distributed.all_reduce(box)
        return bool(box)

    def wait(self) -> None:
        """Return when every worker has come here."""
        if self.size > 1:
            from torch import distributed

            distributed.barrier()
