"""Writes a simulated domain as Parquet files in a process of its own: seconds, and peak memory.

    python -m benchmarks.simulate_worker

reads {"source": a simulated source's config, "folder": where} as JSON from each line of standard
input, writes the tables (see `written_tables`) with what it took in FOLDER/made.json, and answers
with the same as a JSON line. Peaks as in `prepare_worker`.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.prepare_worker import MB
from pipeline.resident_memory import peak_bytes
from pipeline.sources.simulated import SimulatedConfig, read_simulated
from pipeline.sources.written_tables import write_tables
from pipeline.whole_files import write_json

MADE = "made.json"
_WARM_UP = SimulatedConfig(catalogue="books", population=50, items=40)


def made(source: SimulatedConfig, folder: Path) -> dict[str, Any]:
    """Write a domain's tables to a new folder; figures of it."""
    wall, cpu = time.perf_counter(), time.process_time()
    interactions, items = write_tables(read_simulated(source), folder)
    figures = {
        "source": source.model_dump(mode="json"),
        "interactions": interactions,
        "items": items,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb": peak_bytes() / MB,
    }
    write_json(folder / MADE, figures)
    return figures


def main() -> None:
    """Compile first, which is not timed; then write what is asked for."""
    with tempfile.TemporaryDirectory() as folder:
        made(_WARM_UP, Path(folder) / "warm-up")
    print(json.dumps({"level_mb": peak_bytes() / MB}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        source = SimulatedConfig.model_validate(request["source"])
        print(json.dumps(made(source, Path(request["folder"]))), flush=True)


if __name__ == "__main__":
    main()
