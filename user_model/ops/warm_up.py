"""Compile the CPU kernels ahead of their first use: `python -m user_model.ops.warm_up`.

They are compiled once on a machine and kept in the user's cache folder (or under NUMBA_CACHE_DIR);
`make install` does it, so that no training waits for it and no group of workers does it all
at the same time.
"""

import sys
import time

import torch

from user_model.ops import (
    conv_scan,
    gated_norm,
    grouped_linear,
    hydra_scan,
    rms_norm,
    rope_product,
    running_sum,
    swiglu,
    token_dropout,
)
from user_model.ops.backends import cpu_problem
from user_model.ops.convolution import causal_conv


def warm_up(dtype: torch.dtype = torch.float32) -> None:
    """Run every compiled kernel of a training for this type once, forward and backward.

    What only answers users is compiled by a server's first answers, which it gives to itself.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()

    T, H, P = 3, 1, 16
    cu_seqlens, x, z, A = torch.tensor([0, T]), random(T, H, P), random(T, H, P), -torch.ones(H)
    one = torch.ones(H)
    mixed, _, _ = conv_scan(
        x, random(T, H, 2 * P + 1), A, one, z, random(H, 3 * P, 4), random(H, 3 * P), cu_seqlens,
        backend="cpu",
    )  # fmt: skip
    scanned = hydra_scan(x, random(T, H), A, x, z, one, z, cu_seqlens, backend="cpu")
    convolved = causal_conv(random(T, P), random(P, 4), None, cu_seqlens, backend="cpu")
    turned = rope_product(x, z, cu_seqlens, backend="cpu")
    normed = gated_norm(x, z, random(H, P), 1e-6, backend="cpu")
    gated = swiglu(random(T, 2 * P), backend="cpu")
    mapped = grouped_linear(x, random(H, P, P), backend="cpu")
    scaled = rms_norm(random(T, P), random(P), 1e-6, backend="cpu")
    dropped = token_dropout(random(T, P), torch.arange(T), 0.5, backend="cpu")
    summed = running_sum(x, cu_seqlens, backend="cpu")
    results = (mixed, scanned, convolved, turned, normed, gated, mapped, scaled, dropped, summed)
    torch.stack([result.sum() for result in results]).sum().backward()


def main() -> int:
    """Compile for float32; say what it took, or why it cannot be done. Always returns 0."""
    if cpu_problem():
        print(
            f"the CPU kernels cannot be compiled here ({cpu_problem()}); 'torch' will run instead"
        )
        return 0
    began = time.perf_counter()
    warm_up()
    print(f"the CPU kernels are compiled ({time.perf_counter() - began:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
