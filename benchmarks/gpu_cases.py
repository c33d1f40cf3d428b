"""The rungs of the ladder that a device climbs: each kernel against its reference on the CPU.

Shapes: T tokens, S sequences, H heads, P head width, N state, K channels or negatives, V items,
d width.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from user_model.ops import hydra_scan, plan
from user_model.ops.convolution import conv_reference
from user_model.ops.infonce import infonce_reference

Named = dict[str, Tensor]
Op = Callable[..., tuple[Tensor, ...]]
Mode = Literal["aligned", "runs", "long"]
# Parameters of the scan and its states are float32 beside 16-bit streams.
WIDE = ("dt", "A", "D", "dt_bias", "initial_state", "log_q")


@dataclass(frozen=True)
class Case:
    """One rung: an op on a device against a reference on the CPU.

    Attributes:
        name: what is held against what.
        inputs: float64 leaves.
        outputs: names of what both return.
        op: the kernel, on leaves of the type and device under test.
        reference: the same on float64 leaves.
    """

    name: str
    inputs: Named
    outputs: tuple[str, ...]
    op: Op
    reference: Op


def scan_case(
    device: str, mode: Mode, lengths: list[int], P: int, N: int, gated: bool, H: int = 2
) -> Case:
    """Hold the scan in one mode; runs have no states."""
    from user_model.ops.scan_triton import scan_over
    from user_model.ops.tiles import tile_work

    cu, random, T = bounds(lengths), random_source(3), sum(lengths)
    states = mode != "runs"
    inputs = {
        "x": random(T, H, P), "dt": random(T, H) - 2, "A": -torch.exp(2.7 * random(H).sigmoid()),
        "B": random(T, H, N) / math.sqrt(N), "C": random(T, H, N), "D": random(H),
        "dt_bias": 0.1 * random(H),
    }  # fmt: skip
    if gated:
        inputs["z"] = random(T, H, P)
    if states:
        inputs["initial_state"] = random(len(lengths), H, N, P)
    batch = plan(cu.to(device))

    def op(
        x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, dt_bias: Tensor,
        z: Tensor | None = None, initial_state: Tensor | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        options: dict[str, Any] = {"group_tiles": 1} if mode == "long" else {}
        work = tile_work(cu.to(device), mode=mode, **options)
        y, final = scan_over(
            work, x, dt, A, B, C, D, z, batch,
            dt_bias_H=dt_bias, initial_SHNP=initial_state, return_final_state=states,
        )  # fmt: skip
        return (y,) if final is None else (y, final)

    def reference(
        x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, dt_bias: Tensor,
        z: Tensor | None = None, initial_state: Tensor | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        y, final = hydra_scan(
            x, dt, A, B, C, D, z, cu, dt_bias=dt_bias, initial_state=initial_state,
            return_final_state=True, backend="reference",
        )  # fmt: skip
        return (y, final) if states else (y,)

    name = f"scan {mode} P={P} N={N}{'' if gated else ' without z'}"
    return Case(name, inputs, ("y", "final")[: 1 + states], op, reference)


def conv_case(device: str, lengths: list[int], K: int, W: int) -> Case:
    """Hold the convolution with bias, SiLU and tails."""
    from user_model.ops.convolution_triton import conv_triton

    cu, random = bounds(lengths), random_source(5)
    inputs = {
        "x": random(sum(lengths), K), "weight": random(K, W), "bias": random(K),
        "tails": random(len(lengths), K, W - 1),
    }  # fmt: skip
    batch = plan(cu.to(device))
    return Case(
        f"conv W={W}", inputs, ("y", "final"),
        lambda x, weight, bias, tails: conv_triton(x, weight, bias, batch, tails, silu=True),
        lambda x, weight, bias, tails: conv_reference(x, weight, bias, cu, tails, silu=True),
    )  # fmt: skip


def infonce_case(device: str, T: int, d: int, tile: int, K: int, V: int = 500) -> Case:
    """Hold the loss at the temperature that training takes, with log_q."""
    from user_model.ops.infonce_triton import infonce_triton

    random, generator = random_source(7), torch.Generator().manual_seed(8)
    unit = torch.nn.functional.normalize
    inputs = {"query": unit(random(T, d), dim=-1), "table": unit(random(V, d), dim=-1)}
    positive = torch.randint(V, (T,), generator=generator)
    negative = torch.randint(V, (-(-T // tile), K), generator=generator)
    log_q = torch.rand(V, generator=generator).log()
    lent = (positive.to(device), negative.to(device), log_q.to(device), 0.07, tile)
    exact = (positive, negative, log_q.double(), 0.07, tile)
    return Case(
        f"infonce T={T} d={d} tile={tile}", inputs, ("loss",),
        lambda query, table: (infonce_triton(query, table, *lent),),
        lambda query, table: (infonce_reference(query, table, *exact),),
    )  # fmt: skip


def bounds(lengths: list[int]) -> Tensor:
    """Turn lengths into cu_seqlens, int64 [S+1]."""
    return torch.tensor([0, *lengths]).cumsum(0)


def random_source(seed: int) -> Callable[..., Tensor]:
    """Return a function of sizes: normal numbers in float64 on the CPU, the same on every run."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
