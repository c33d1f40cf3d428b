"""How much of a model's work on packed batches is padding.

Batches are packed, so whatever works token by token sees none; what is left is inside the scan, or
inside attention, whose kernels take tokens in blocks.
Shapes: S sequences.
"""

import torch
from torch import Tensor, nn

from user_model import ops
from user_model.attention import AttentionPlan
from user_model.hstu import HSTU
from user_model.hydra import Hydra
from user_model.mamba2rec import Mamba2Rec
from user_model.ops import scan
from user_model.ops.backends import resolve
from user_model.sasrec import SASRec
from user_model.sasrec_published import PublishedSASRec


def padding_share(model: nn.Module, cu_seqlens: Tensor) -> float | None:
    """Return the share of the slots that hold no token in the model's scan, or its attention.

    Args:
        model: a sequence model. That of a scan is its backend's, 0 where that is compiled for
            CPUs; that of attention is that of its padded rows.
        cu_seqlens: int64 [S + 1], seams of a batch.

    Returns:
        a number from 0 to 1; None for other models, and for backends that do not tell.
    """
    if isinstance(model, SASRec | PublishedSASRec | HSTU):
        slots = len(AttentionPlan.build(cu_seqlens).gather)
        return 1.0 - int(cu_seqlens[-1]) / slots if slots else 0.0
    if not isinstance(model, Hydra | Mamba2Rec):
        return None
    backend = resolve("hydra_scan", model.config.backend, scan.BACKENDS, _device(model))
    if backend == "mamba_ssm":
        return None
    return ops.plan(cu_seqlens).padding_share(backend)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
