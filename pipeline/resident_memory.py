"""Resident memory of this process at its peak, and by how much a call raises it. Linux only."""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_LOWER_PEAK = Path("/proc/self/clear_refs")


def peak_extra_bytes(run: Callable[[], object]) -> tuple[int, int]:
    """Measure one call; for figures that mean something, in a process that did nothing else.

    What is allocated once (threads, tables, a library's buffers) is not the call's own: warm up.

    Returns:
        The peak above the level just before the call, and that level, in bytes.

    Raises:
        RuntimeError: the system does not tell resident memory as Linux does.
    """
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that the allocator keeps would hide new use
    _LOWER_PEAK.write_text("5")
    before = _status_kib("VmRSS")
    results = run()
    peak = _status_kib("VmHWM")
    del results  # held until here: results are part of the peak
    return (peak - before) * 1024, before * 1024


def forget_peak() -> None:
    """Have `peak_bytes` tell the peak from now on; where that is forbidden, it stays as it was."""
    with suppress(OSError):
        _LOWER_PEAK.write_text("5")  # the high-water mark falls to the level


def peak_bytes() -> int:
    """The peak of this process so far; getrusage's figure holds that of the parent too.

    Raises:
        RuntimeError: the system does not tell resident memory as Linux does.
    """
    return _status_kib("VmHWM") * 1024


def _status_kib(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status: no {field}; peak memory is measured on Linux only")
