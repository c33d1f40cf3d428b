"""InfoNCE over sampled negatives at every position: the training loss, without the logit matrix.

Hydra trains with InfoNCE over 512 sampled negatives (the paper's); negatives shared by a tile of
positions are our choice: gathering a row of negatives for each position costs ten times the time.

Shapes: T positions, V items, d width, K negatives, G tiles.
"""

from __future__ import annotations

import torch
from torch import Tensor

from user_model.ops.backends import resolve
from user_model.ops.infonce_torch import infonce_torch

BACKENDS = ("reference", "torch", "triton")


def sampled_infonce(
    query: Tensor,
    table: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    log_q: Tensor | None = None,
    temperature: float,
    tile: int = 128,
    backend: str = "auto",
) -> Tensor:
    """Return -log softmax of the positive among itself and its tile's negatives, per position.

    The logit of item v at position t is <query_t, table_v> / temperature - log_q_v; queries and
    table are taken as they are (normalise them before). A negative equal to the position's positive
    is left out. The correction by log_q applies to positive and negatives alike (Bengio and
    Senecal's sampled softmax). Differentiable in query and table, with memory for a few tiles.

    Args:
        query: [T, d].
        table: [V, d], the type of query.
        positive: int64 [T], rows of the table.
        negative: int64 [ceil(T / tile), K]; row g is shared by positions g*tile .. (g+1)*tile - 1.
        log_q: [V], log of the probability with which each item is sampled; None is no correction.
        temperature: above 0.
        tile: positions that share a row of negatives.
        backend: "reference" (position by position, the specification), "torch", "triton", or
            "auto": by device ("torch" on a CPU).

    Below float32 logits and sums are float32.

    Returns:
        loss [T], float32 at least.

    Raises:
        ValueError: a shape, a type, a value or the backend is not as described.
    """
    took = resolve("sampled_infonce", backend, BACKENDS, query.device)
    _check(query, table, positive, negative, log_q, temperature, tile)
    dtype = torch.promote_types(query.dtype, torch.float32)
    corrections = None if log_q is None else log_q.detach().to(dtype)
    if took == "triton":
        from user_model.ops.infonce_triton import infonce_triton

        return infonce_triton(query, table, positive, negative, corrections, temperature, tile)
    form = infonce_reference if took == "reference" else infonce_torch
    return form(
        query.to(dtype), table.to(dtype), positive, negative, corrections, temperature, tile
    )


def infonce_reference(
    query_Td: Tensor,
    table_Vd: Tensor,
    positive_T: Tensor,
    negative_GK: Tensor,
    log_q_V: Tensor | None,
    temperature: float,
    tile: int,
) -> Tensor:
    """Compute the loss position by position: the specification of every faster form."""
    losses = [query_Td.new_zeros(0)]
    for t, target in enumerate(positive_T.tolist()):
        others = negative_GK[t // tile]
        items = torch.cat((positive_T[t : t + 1], others[others != target]))
        logits = table_Vd[items] @ query_Td[t] / temperature
        if log_q_V is not None:
            logits = logits - log_q_V[items]
        losses.append((logits - logits[0]).logsumexp(0, keepdim=True))
    return torch.cat(losses)


def _check(
    query: Tensor,
    table: Tensor,
    positive: Tensor,
    negative: Tensor,
    log_q: Tensor | None,
    temperature: float,
    tile: int,
) -> None:
    if temperature <= 0 or tile < 1:
        raise ValueError(
            f"sampled_infonce: got temperature {temperature} and tile {tile}, "
            "expected a temperature above 0 and a tile of at least 1"
        )
    if query.dim() != 2 or not query.is_floating_point():
        raise ValueError(
            f"sampled_infonce: query: got {query.dtype} {list(query.shape)}, expected float [T, d]"
        )
    T, d = query.shape
    V = table.shape[0]
    K = negative.shape[-1] if negative.dim() else 0
    for name, tensor, shape, dtype in (
        ("table", table, (V, d), query.dtype),
        ("positive", positive, (T,), torch.int64),
        ("negative", negative, (-(-T // tile), K), torch.int64),
        ("log_q", log_q, (V,), None),
    ):
        if tensor is None:
            continue
        if tensor.shape != shape or (dtype is not None and tensor.dtype != dtype):
            raise ValueError(
                f"sampled_infonce: {name}: got {tensor.dtype} {list(tensor.shape)}, expected "
                f"{dtype or 'floating point'} {list(shape)} (query is {query.dtype} [{T}, {d}], "
                f"tile is {tile})"
            )
