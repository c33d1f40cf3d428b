"""What the Hydra mixer and its loss must move and compute for each token: an estimate.

    python -m benchmarks.roofline

Bytes are counted from the arguments of each kernel: every row that it reads or writes, once, in
bfloat16 where it is a stream. What many programs share and caches hold is left out: parameters,
work lists, the table of turns, a neighbour's overlap. FLOP are those of the dots, and 2 W a channel
for the convolution. A floor is the longer of bytes / 3.35 TB/s and FLOP / 989 TFLOP/s, the figures
that NVIDIA gives for an H100 SXM (dense bfloat16): no launch, no latency, no tail. The rival is the
same op unfused: mamba-ssm 2.3.1's SSD kernels (chunk 256), then RoPE and the product as separate
torch kernels, counted in the same way from their arguments. No figure here has been measured.

Letters: H heads, P head width, N state, Q tokens a tile, W taps, C channels of the convolution,
K negatives, M positions that share them, d width.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.harness import Check, finish
from user_model.ops.tiles import TILE as Q

H, P, N, W = 4, 32, 32, 4
C = H * (P + 2 * N)
K, M, d = 512, 128, 128
CHUNK = 256
CONV_ROWS = 32
STREAM, FLOAT, INDEX = 2, 4, 8  # bytes
BYTES_A_SECOND, FLOP_A_SECOND = 3.35e12, 989e12

# A state, of all heads, is kept for every tile, or in mamba-ssm for every chunk.
STATE = H * N * P * FLOAT / Q
CHUNK_STATE = H * N * P * FLOAT / CHUNK
X, B_OR_C, SCALAR, STEP = H * P * STREAM, H * N * STREAM, H * STREAM, H * FLOAT
SQUARE = H * CHUNK * FLOAT  # a row of mamba-ssm's C B^T, chunk by chunk for each head


@dataclass(frozen=True)
class Kernel:
    """One launch.

    Attributes:
        name: of the kernel.
        op: what it is part of.
        direction: "forward" or "backward".
        moved: bytes a token of each argument that grows with the tokens.
        flop: a token.
    """

    name: str
    op: str
    direction: str
    moved: Mapping[str, float]
    flop: float = 0.0

    @property
    def bytes(self) -> float:
        """Bytes a token."""
        return sum(self.moved.values())


def _dots(square_n: int, square_p: int, state: int) -> float:
    """FLOP a token of dots with Q x Q by N, Q x Q by P, and N x P."""
    return 2.0 * H * (Q * N * square_n + Q * P * square_p + N * P * state)


INFONCE_READS = {"QUERY": d * STREAM, "POSITIVE": INDEX + d * STREAM, "TABLE": K * d * STREAM / M,
                 "NEGATIVE": K * INDEX / M}  # fmt: skip

FUSED = (
    Kernel(
        "scan_forward", "scan", "forward",
        {"X": X, "DT": SCALAR, "B": B_OR_C, "C": B_OR_C, "Z": X, "TURN_ROW": INDEX, "OUT": X,
         "STATES": STATE, "STEPS": STEP},
        _dots(1, 1, 2),
    ),
    Kernel(
        "backward_tiles", "scan", "backward",
        {"X": X, "B": B_OR_C, "C": B_OR_C, "Z": X, "TURN_ROW": INDEX, "STATES": STATE,
         "STEPS": STEP, "DOUT": X, "DY": X, "DZ": X, "DC": B_OR_C, "DLOG": STEP, "DSKIP": STEP / Q},
        _dots(2, 2, 2),
    ),
    Kernel(
        "backward_items", "scan", "backward",
        {"X": X, "DT": SCALAR, "B": B_OR_C, "C": B_OR_C, "STATES": STATE, "STEPS": STEP, "DY": X,
         "DLOG": STEP, "DX": X, "DDT": STEP, "DB": B_OR_C},
        _dots(2, 2, 3),
    ),
    Kernel(
        "conv_forward", "conv", "forward",
        {"X": C * STREAM, "POSITION": INDEX, "Y": C * STREAM},
        2.0 * W * C,
    ),
    Kernel(
        "conv_backward", "conv", "backward",
        {"X": C * STREAM, "POSITION": INDEX, "SEGMENT": INDEX, "DY": C * STREAM, "DX": C * STREAM,
         "PARTS": (W + 1) * C * FLOAT / CONV_ROWS},
        2.0 * W * C * (W + 2),
    ),
    Kernel(
        "infonce_forward", "infonce", "forward",
        INFONCE_READS | {"LOSS": FLOAT, "LOG_SUM": FLOAT},
        2.0 * K * d,
    ),
    Kernel(
        "infonce_dquery", "infonce", "backward",
        INFONCE_READS | {"LOG_SUM": FLOAT, "DLOSS": FLOAT, "DQUERY": d * STREAM, "WEIGHT": FLOAT},
        4.0 * K * d,
    ),
    Kernel(
        "infonce_dnegatives", "infonce", "backward",
        {"QUERY": d * STREAM, "TABLE": K * d * STREAM / M, "POSITIVE": INDEX,
         "NEGATIVE": K * INDEX / M, "LOG_SUM": FLOAT, "DLOSS": FLOAT, "DROWS": K * d * FLOAT / M},
        4.0 * K * d,
    ),
    # The positives' rows, and the sum of all rows by item: read once more, written once.
    Kernel(
        "embedding backward", "infonce", "backward",
        {"QUERY": d * STREAM, "DROWS": (K / M + 2) * d * FLOAT, "items": (K / M + 1) * INDEX,
         "DTABLE": (K / M + 1) * d * FLOAT},
    ),
)  # fmt: skip

_CUMSUM = {"dt": SCALAR, "dt_out": STEP, "dA_cumsum": STEP}
_CHUNK_STATE = {"B": B_OR_C, "x": X, "dt": STEP, "dA_cumsum": STEP, "states": CHUNK_STATE}
_PASSING = {"states": CHUNK_STATE, "out": CHUNK_STATE, "dA": STEP / CHUNK}
_BMM = {"C": B_OR_C, "B": B_OR_C, "CB": SQUARE}
_HALF = X / 2


def _bmm_flop(width: int) -> float:
    return 2.0 * H * CHUNK * width


UNFUSED = (
    Kernel("chunk_cumsum", "scan", "forward", _CUMSUM),
    Kernel("chunk_state", "scan", "forward", _CHUNK_STATE, 2.0 * H * N * P),
    Kernel("state_passing", "scan", "forward", _PASSING),
    Kernel("bmm_chunk", "scan", "forward", _BMM, _bmm_flop(N)),
    Kernel(
        "chunk_scan", "scan", "forward",
        {"CB": SQUARE, "x": X, "dt": STEP, "dA_cumsum": STEP, "C": B_OR_C, "states": CHUNK_STATE,
         "out": X},
        _bmm_flop(P) + 2.0 * H * N * P,
    ),
    # Four products of halves with cos or sin, a difference, a sum, the two interleaved.
    Kernel("RoPE in torch", "scan", "forward", {"halves": 4 * 2 * _HALF + 2 * 3 * _HALF + 2 * X}),
    Kernel("product", "scan", "forward", {"y": X, "rotated": X, "out": X}),
    Kernel("product", "scan", "backward", {"dout": 2 * X, "y": X, "rotated": X, "both": 2 * X}),
    Kernel("RoPE in torch", "scan", "backward",
           {"halves": 2 * X + 4 * 2 * _HALF + 2 * 3 * _HALF + 2 * X}),
    # States and C B^T are computed again.
    Kernel("chunk_cumsum", "scan", "backward", _CUMSUM),
    Kernel("chunk_state", "scan", "backward", _CHUNK_STATE, 2.0 * H * N * P),
    Kernel("state_passing", "scan", "backward", _PASSING),
    Kernel("bmm_chunk", "scan", "backward", _BMM, _bmm_flop(N)),
    Kernel(
        "chunk_scan_bwd_dstates", "scan", "backward",
        {"C": B_OR_C, "dout": X, "dA_cumsum": STEP, "dstates": CHUNK_STATE}, 2.0 * H * N * P,
    ),
    Kernel("state_passing_bwd", "scan", "backward",
           {"dout": CHUNK_STATE, "states": CHUNK_STATE, "dstates": CHUNK_STATE}),
    Kernel(
        "chunk_scan_chunk_state_bwd_dx", "scan", "backward",
        {"x": X, "CB": SQUARE, "dout": X, "dt": STEP, "dA_cumsum": STEP, "B": B_OR_C,
         "dstates": CHUNK_STATE, "dx": X, "ddt": STEP},
        _bmm_flop(P) + 2.0 * H * N * P,
    ),
    Kernel(
        "chunk_state_bwd_db", "scan", "backward",
        {"x": X, "dstates": CHUNK_STATE, "B": B_OR_C, "dt": STEP, "dA_cumsum": STEP,
         "dB": H * N * FLOAT, "ddA": STEP},
        2.0 * H * N * P,
    ),
    Kernel(
        "chunk_scan_bwd_dC", "scan", "backward",
        {"states": CHUNK_STATE, "C": B_OR_C, "dout": X, "dA_cumsum": STEP, "dC": H * N * FLOAT,
         "ddA": STEP},
        2.0 * H * N * P,
    ),
    Kernel(
        "chunk_scan_bwd_dcb", "scan", "backward",
        {"x": X, "dout": X, "CB": SQUARE, "dt": STEP, "dA_cumsum": STEP, "dCB": SQUARE,
         "ddA": STEP},
        _bmm_flop(P),
    ),
    Kernel(
        "bmm_chunk_bwd, twice", "scan", "backward",
        {"dCB": 2 * SQUARE, "B, C": 2 * B_OR_C, "dB, dC so far": 2 * H * N * FLOAT,
         "dB, dC": 2 * B_OR_C},
        2 * _bmm_flop(N),
    ),
    Kernel(
        "chunk_scan_bwd_ddAcs_stable", "scan", "backward",
        {"x": X, "dt": STEP, "dA_cumsum": STEP, "dout": X, "CB": SQUARE, "ddA": STEP},
        _bmm_flop(P),
    ),
    Kernel("chunk_cumsum_bwd", "scan", "backward", {"ddA": STEP, "ddt": STEP, "dt": 2 * SCALAR}),
)  # fmt: skip


def per_token(kernels: tuple[Kernel, ...], op: str, direction: str) -> tuple[float, float]:
    """Return bytes and FLOP a token; "both" is forward and backward."""
    counted = [k for k in kernels if k.op == op and direction in (k.direction, "both")]
    return sum(k.bytes for k in counted), sum(k.flop for k in counted)


def floor_seconds(op: str, direction: str, tokens: int) -> float:
    """Return the least time that an H100 needs for our kernels of an op.

    Args:
        op: "scan", "conv" or "infonce".
        direction: "forward", "backward" or "both".
        tokens: T.
    """
    moved, flop = per_token(FUSED, op, direction)
    return tokens * max(moved / BYTES_A_SECOND, flop / FLOP_A_SECOND)


def rows(tokens: int) -> list[dict[str, str | float]]:
    """Return a row for each form, op and direction."""
    found: list[dict[str, str | float]] = []
    for form, kernels in (("fused", FUSED), ("unfused", UNFUSED)):
        for op in dict.fromkeys(kernel.op for kernel in kernels):
            for direction in ("forward", "backward"):
                moved, flop = per_token(kernels, op, direction)
                seconds = tokens * max(moved / BYTES_A_SECOND, flop / FLOP_A_SECOND)
                found.append(
                    {
                        "form": form, "op": op, "direction": direction,
                        "kernels": sum(k.op == op and k.direction == direction for k in kernels),
                        "bytes_a_token": round(moved), "flop_a_token": round(flop),
                        "flop_a_byte": round(flop / moved, 1),
                        "h100_floor_us": round(1e6 * seconds, 1),
                    }
                )  # fmt: skip
    return found


def main(tokens: int = 16_384) -> int:
    """Print the table, and by how much fusing lessens the traffic of the scan."""
    print(f"estimate, not measured: H={H} P={P} N={N} d={d}, bfloat16, floors for {tokens} tokens")
    table = rows(tokens)
    print(" | ".join(table[0]))
    for row in table:
        print(" | ".join(str(value) for value in row.values()))
    checks = []
    for direction in ("forward", "backward"):
        ours, theirs = (per_token(form, "scan", direction)[0] for form in (FUSED, UNFUSED))
        name = f"scan {direction}: bytes unfused over fused (estimate)"
        checks.append(Check(name, theirs / ours, 1.0, "least"))
    return finish("roofline", checks, table)


if __name__ == "__main__":
    sys.exit(main())
