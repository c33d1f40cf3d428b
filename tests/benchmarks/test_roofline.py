"""The roofline counts the arguments that the kernels really have."""

import json

import pytest

pytest.importorskip("triton")

from benchmarks import roofline
from user_model.ops import (
    convolution_kernels,
    infonce_kernels,
    scan_triton_backward,
    scan_triton_forward,
)

MODULES = (convolution_kernels, infonce_kernels, scan_triton_backward, scan_triton_forward)
# Small, or in caches: parameters, work lists, tables.
SHARED = {"A", "D", "BIAS", "WEIGHT", "ITEMS", "TILES", "TURNS", "CU", "LOG_Q", "DA"}
# Absent in training: states in and out, tails, and who is whose neighbour in a tile.
ABSENT = {"INITIAL", "FINAL", "DFINAL", "DINITIAL", "TAILS"}
# Read only with what is absent.
UNREAD = {"conv_forward": {"SEGMENT"}, "backward_items": {"SEGMENT"},
          "backward_tiles": {"SEGMENT"}, "scan_forward": {"SEGMENT"}}  # fmt: skip

KERNELS = [kernel for kernel in roofline.FUSED if kernel.name != "embedding backward"]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_every_argument_of_a_kernel_is_counted(kernel):
    (function,) = (vars(m)[kernel.name] for m in MODULES if kernel.name in vars(m))
    names = "T K P N Q J BLOCKS W M D ACC ROWS CHANNELS SILU"
    sizes = set(names.split())
    if kernel.op == "scan":
        sizes.remove("D")  # there D is the skip
    pointers = {name for name in function.arg_names if name.isupper() or name == "DY"}
    pointers -= {name for name in pointers if name.startswith("HAS_") or name in sizes}
    left_out = (SHARED | ABSENT | UNREAD.get(kernel.name, set())) - set(kernel.moved)
    assert pointers - left_out == set(kernel.moved)


def test_bytes_of_the_convolution_by_hand():
    """384 channels in bfloat16, read and written, and a position of 8 bytes."""
    assert roofline.per_token(roofline.FUSED, "conv", "forward") == (2 * 2 * 384 + 8, 2 * 4 * 384)
    seconds = roofline.floor_seconds("conv", "forward", 1000)
    assert seconds == pytest.approx(1544e3 / 3.35e12)
    both = roofline.floor_seconds("conv", "both", 1000)
    assert both == pytest.approx(seconds + roofline.floor_seconds("conv", "backward", 1000))


def test_prints_an_estimate_and_json(capsys):
    assert roofline.main() == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("estimate, not measured")
    report = json.loads(printed[-1])
    assert report["benchmark"] == "roofline"
    assert {row["form"] for row in report["rows"]} == {"fused", "unfused"}
