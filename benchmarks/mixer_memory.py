"""The peak memory of the lean mixer's forward and backward over L, each in a fresh process.

    python -m benchmarks.mixer_memory LENGTH TOKENS THREADS

prints one peak and the level before it, in bytes; `memory_section` starts it for each length.

There every tensor is a mapping of its own (glibc's MALLOC_MMAP_THRESHOLD_): the peak is what the
call holds at once, the same in every run. In the allocator's heap it also depends on which holes
of 8 MiB, a tensor's size, earlier calls left.
"""

import os
import subprocess
import sys
from functools import partial

import torch

from benchmarks.mixers import HydraMixer, forward_backward, tokens
from benchmarks.scan_report import Report, Setting
from pipeline.resident_memory import peak_extra_bytes
from user_model.ops.result_memory import results

MIB = 1 << 20
BAR = 0.10
MAPPED_FROM = 1 << 16  # bytes


def memory_section(report: Report, setting: Setting) -> None:
    """Hold the spread of the peaks to its bar."""
    report.title(f"Peak memory of the lean mixer, forward + backward, {setting.tokens} tokens")
    peaks = []
    for length in setting.growth_lengths:
        peak, level = peak_of(length, setting)
        peaks.append(peak)
        report.row(
            f"L={length:<6} {peak / MIB:7.1f} MiB above {level / MIB:.0f} MiB",
            section="memory", length=length, tokens=setting.tokens,
            peak_extra_mib=peak / MIB, level_mib=level / MIB,
        )  # fmt: skip
    spread = (max(peaks) - min(peaks)) / min(peaks)
    report.check("peak memory: (max - min) / min over L", spread, BAR, "most")


def peak_of(length: int, setting: Setting) -> tuple[int, int]:
    """Return the peak and the level before it, in bytes, measured in a fresh process."""
    numbers = [str(number) for number in (length, setting.tokens, setting.threads)]
    command = [sys.executable, "-m", "benchmarks.mixer_memory", *numbers]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(MAPPED_FROM)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    peak, level = map(int, done.stdout.split())
    return peak, level


def main(arguments: list[str]) -> None:
    """Measure in this process: a call at the same shape first, then the one that counts.

    Memory that the first call's results left idle is given back, so that the second's counts.
    """
    length, total, threads = map(int, arguments)
    torch.set_num_threads(threads)
    sequences = Setting(tokens=total).sequences(length)
    run = partial(
        forward_backward, HydraMixer("lean", length, sequences), *tokens(length, sequences)
    )
    run()
    results.release()
    print(*peak_extra_bytes(run))


if __name__ == "__main__":
    main(sys.argv[1:])
