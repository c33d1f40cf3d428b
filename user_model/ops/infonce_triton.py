"""InfoNCE over sampled negatives in Triton: the op, its gradients, what is compiled ahead of time.

The kernels are in `infonce_kernels`. The table's gradient is the sum of rows with an item each; the
rows are sorted by item and added in order by PyTorch's embedding backward, so that it is the same
bits twice. Not yet run on a device.

Shapes: T positions, V items, d width, K negatives, G tiles; M positions by N negatives by D columns
a program.
"""

from itertools import product
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from user_model.ops.backends import BackendUnavailableError
from user_model.ops.infonce_kernels import infonce_dnegatives, infonce_dquery, infonce_forward
from user_model.ops.triton_devices import NAMES, Signature, check_launchable

# (M, N, warps, stages) by bytes an element and D: what stays in registers and under 48 KB of shared
# memory. M and N stay below 64, so that Hopper's dots are mma.sync, as Ampere's.
_TILES = {
    (2, 16): (32, 32, 4, 2), (2, 32): (32, 32, 4, 2), (2, 64): (32, 32, 4, 2),
    (2, 128): (32, 32, 4, 2), (2, 256): (32, 32, 4, 2), (2, 512): (16, 16, 4, 1),
    (4, 16): (16, 16, 4, 1), (4, 32): (16, 16, 4, 1), (4, 64): (16, 16, 4, 1),
    (4, 128): (16, 16, 8, 1),
    (8, 16): (16, 16, 4, 1), (8, 32): (16, 16, 4, 1), (8, 64): (16, 16, 4, 1),
    (8, 128): (16, 16, 8, 1),
}  # fmt: skip
_NARROWEST = 16


def infonce_triton(
    query_Td: Tensor,
    table_Vd: Tensor,
    positive_T: Tensor,
    negative_GK: Tensor,
    log_q_V: Tensor | None,
    temperature: float,
    tile: int,
) -> Tensor:
    """Do what `infonce_reference` does, in Triton.

    Args:
        query_Td: float [T, d]; below float32 it is the operand of dots as it is, and all else is
            float32.
        table_Vd: [V, d], the type of query.
        positive_T: int64 [T].
        negative_GK: int64 [G, K].
        log_q_V: [V] or None.
        temperature: above 0.
        tile: positions that share a row of negatives.

    Returns:
        loss [T], float32 (float64 for float64).

    Raises:
        BackendUnavailableError: d too wide for a program, no GPU and no interpreter, or bfloat16
            in the interpreter.
    """
    check_launchable("sampled_infonce", query_Td)
    widest = max(D for size, D in _TILES if size == query_Td.element_size())
    if query_Td.shape[1] > widest:
        raise BackendUnavailableError(
            f"sampled_infonce: backend 'triton': query has width {query_Td.shape[1]}, expected at "
            f"most {widest} in {query_Td.dtype}; use backend 'torch'"
        )
    shared = max(min(tile, query_Td.shape[0]), 1)
    loss_T, _ = _infonce(
        query_Td, table_Vd, positive_T, negative_GK, log_q_V, 1.0 / temperature, shared
    )
    return loss_T


@torch.library.custom_op("hydrarec::infonce_triton", mutates_args=())
def _infonce(
    query_Td: Tensor,
    table_Vd: Tensor,
    positive_T: Tensor,
    negative_GK: Tensor,
    log_q_V: Tensor | None,
    inverse_temperature: float,
    tile: int,
) -> tuple[Tensor, Tensor]:
    """Return loss [T] and log-sum [T]."""
    batch = (query_Td, table_Vd, positive_T, negative_GK, log_q_V)
    loss_T = query_Td.new_empty(query_Td.shape[0], dtype=_accumulator(query_Td))
    log_sum_T = torch.empty_like(loss_T)
    _launch(infonce_forward, "M", batch, (loss_T, log_sum_T), inverse_temperature, tile)
    return loss_T, log_sum_T


@torch.library.custom_op("hydrarec::infonce_triton_dquery", mutates_args=())
def _dquery(
    dloss_T: Tensor,
    log_sum_T: Tensor,
    query_Td: Tensor,
    table_Vd: Tensor,
    positive_T: Tensor,
    negative_GK: Tensor,
    log_q_V: Tensor | None,
    inverse_temperature: float,
    tile: int,
) -> tuple[Tensor, Tensor]:
    """Return dquery [T, d] and weight [T]: the positive's row of the table gets -weight * query."""
    batch = (query_Td, table_Vd, positive_T, negative_GK, log_q_V)
    dquery_Td = query_Td.new_empty(query_Td.shape)
    weight_T = torch.empty_like(log_sum_T)
    _launch(
        infonce_dquery, "M", batch, (log_sum_T, dloss_T.contiguous(), dquery_Td, weight_T),
        inverse_temperature, tile,
    )  # fmt: skip
    return dquery_Td, weight_T


@torch.library.custom_op("hydrarec::infonce_triton_dtable", mutates_args=())
def _dtable(
    dloss_T: Tensor,
    log_sum_T: Tensor,
    weight_T: Tensor,
    query_Td: Tensor,
    table_Vd: Tensor,
    positive_T: Tensor,
    negative_GK: Tensor,
    log_q_V: Tensor | None,
    inverse_temperature: float,
    tile: int,
) -> Tensor:
    """Return dtable [V, d]."""
    batch = (query_Td, table_Vd, positive_T, negative_GK, log_q_V)
    (T, d), n_negatives = query_Td.shape, negative_GK.numel()
    # First the negatives' rows, then the positives'.
    drows = weight_T.new_empty(n_negatives + T, d)
    _launch(
        infonce_dnegatives, "N", batch, (log_sum_T, dloss_T.contiguous(), drows),
        inverse_temperature, tile,
    )  # fmt: skip
    torch.mul(query_Td.to(drows.dtype), -weight_T[:, None], out=drows[n_negatives:])
    items = torch.cat((negative_GK.flatten(), positive_T))
    dtable_Vd: Tensor = torch.ops.aten.embedding_dense_backward(
        drows, items, table_Vd.shape[0], -1, False
    )
    return dtable_Vd.to(table_Vd.dtype)


def _launch(
    kernel: Any,
    split: str,
    batch: tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None],
    rest: tuple[Tensor, ...],
    inverse_temperature: float,
    tile: int,
) -> None:
    """Run a kernel; its programs cut each tile into blocks of M positions or N negatives."""
    query_Td, table_Vd, positive_T, negative_GK, log_q_V = batch
    (T, d), (G, K) = query_Td.shape, negative_GK.shape
    M, N, warps, stages = _TILES[query_Td.element_size(), _padded(d)]
    blocks = triton.cdiv(tile, M) if split == "M" else triton.cdiv(K, N)
    if T == 0 or blocks == 0:
        return
    query_Td = query_Td if query_Td.stride(-1) == 1 else query_Td.contiguous()
    table_Vd = table_Vd if table_Vd.stride(-1) == 1 else table_Vd.contiguous()
    with torch.cuda.device_of(query_Td):
        kernel[(G * blocks,)](
            query_Td, table_Vd, positive_T.contiguous(), negative_GK.contiguous(),
            None if log_q_V is None else log_q_V.contiguous(), *rest,
            T, K, d, tile, blocks, query_Td.stride(0), table_Vd.stride(0), inverse_temperature,
            ACC=tl.float64 if query_Td.dtype == torch.float64 else tl.float32,
            M=M, N=N, D=_padded(d), num_warps=warps, num_stages=stages,
        )  # fmt: skip


def _padded(d: int) -> int:
    padded: int = triton.next_power_of_2(max(d, _NARROWEST))
    return padded


def _accumulator(query: Tensor) -> torch.dtype:
    return torch.promote_types(query.dtype, torch.float32)


@_infonce.register_fake
def _(query_Td: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    loss_T = query_Td.new_empty(query_Td.shape[0], dtype=_accumulator(query_Td))
    return loss_T, torch.empty_like(loss_T)


@_dquery.register_fake
def _(dloss_T: Tensor, log_sum_T: Tensor, query_Td: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return query_Td.new_empty(query_Td.shape), torch.empty_like(log_sum_T)


@_dtable.register_fake
def _(
    dloss_T: Tensor, log_sum_T: Tensor, weight_T: Tensor, query_Td: Tensor, table_Vd: Tensor,
    *_: Any,
) -> Tensor:  # fmt: skip
    return table_Vd.new_empty(table_Vd.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.inverse_temperature, ctx.tile = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1], *tensors)


def _differentiate(ctx: Any, dloss_T: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    log_sum_T, *batch = ctx.saved_tensors
    options = (ctx.inverse_temperature, ctx.tile)
    dquery_Td, weight_T = _dquery(dloss_T, log_sum_T, *batch, *options)
    dtable_Vd = None
    if ctx.needs_input_grad[1]:
        dtable_Vd = _dtable(dloss_T, log_sum_T, weight_T, *batch, *options)
    return dquery_Td, dtable_Vd, None, None, None, None, None


_infonce.register_autograd(_differentiate, setup_context=_save)


def aot_signatures() -> list[Signature]:
    """Return what is shipped: (kernel, argument types, constants, warps, stages) of each variant.

    The usual variants come first. Without log_q there is d = 128 alone, and none of float16, which
    differs from bfloat16 in nothing but the type.
    """
    kernels = (infonce_forward, infonce_dquery, infonce_dnegatives)
    found = []
    for dtype, D, absent, kernel in product(
        (torch.bfloat16, torch.float32), (128, 64, 256, 512, 32, 16), ((), ("LOG_Q",)), kernels
    ):
        if (dtype.itemsize, D) in _TILES and (D == 128 or not absent):
            M, N, warps, stages = _TILES[dtype.itemsize, D]
            constants = {"ACC": tl.float32, "M": M, "N": N, "D": D} | dict.fromkeys(absent)
            types = _types(kernel, constants, dtype)
            found.append((kernel, types, constants, warps, stages))
    return found


def _types(kernel: Any, constants: dict[str, Any], dtype: torch.dtype) -> dict[str, str]:
    floats = ("LOG_Q", "LOSS", "LOG_SUM", "DLOSS", "WEIGHT", "DROWS")
    special = dict.fromkeys(floats, "*fp32") | {
        "POSITIVE": "*i64", "NEGATIVE": "*i64", "inverse_temperature": "fp64", "T": "i32",
        "K": "i32:16", "d": "i32:16", "tile": "i32:16", "blocks": "i32",
        "query_stride": "i32:16", "table_stride": "i32:16",
    }  # fmt: skip
    names: list[str] = kernel.arg_names
    return {n: special.get(n, f"*{NAMES[dtype]}") for n in names if n not in constants}
