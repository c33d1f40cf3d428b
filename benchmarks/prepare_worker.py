"""Prepares one domain in a process of its own: seconds, counts, and peak memory.

    python -m benchmarks.prepare_worker DATA_FOLDER

reads a domain's config as JSON from each line of standard input, prepares it from its source to the
corpus on disk, and answers with a JSON line. The peak is the process's greatest resident memory
since it began, all that a run imports included: a peak that is to mean something is the first.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# For the level of memory: it brings along all that the corpus stage of a run does.
import pipeline.prepare  # noqa: F401
from pipeline.corpus import build_corpus
from pipeline.domains import DomainConfig, clean_domain
from pipeline.resident_memory import peak_bytes
from pipeline.sources.registry import read_source
from pipeline.sources.tables import Part, RawTables

MIB = 1 << 20
_WARM_UP = {
    "name": "warm-up",
    "source": {"format": "simulated", "catalogue": "books", "population": 50, "items": 40},
}


class _Clock:
    """Seconds by the wall and of the process (CPU) since it was made, and of drawing parts."""

    def __init__(self) -> None:
        self._began = _now()
        self.source = np.zeros(2)

    def timed(self, parts: Iterable[Part]) -> Iterator[Part]:
        """The same parts."""
        drawn = iter(parts)
        while True:
            began = _now()
            part = next(drawn, None)
            self.source += _now() - began
            if part is None:
                return
            yield part

    def figures(self) -> dict[str, float]:
        """All seconds until now, and those of the source among them."""
        (wall, cpu), (source_wall, source_cpu) = _now() - self._began, self.source
        return {
            "seconds": wall,
            "cpu_seconds": cpu,
            "source_seconds": source_wall,
            "source_cpu_seconds": source_cpu,
        }


def _now() -> NDArray[np.float64]:
    return np.array([time.perf_counter(), time.process_time()])


def prepared(config: DomainConfig, data: Path, **budgets: int) -> dict[str, Any]:
    """Prepare one domain in a temporary folder; figures of it.

    Args:
        config: the domain.
        data: the folder that its relative paths start from.
        budgets: `working_bytes` and `most_events`, if others than the product's.
    """
    events = {"most_events": budgets.pop("most_events")} if "most_events" in budgets else {}
    with tempfile.TemporaryDirectory() as folder:
        output, clock = Path(folder), _Clock()
        raw = read_source(config.source, data)
        timed: RawTables = replace(
            raw, interactions=clock.timed(raw.interactions), items=clock.timed(raw.items)
        )
        domain = clean_domain(config, timed, output / "refused", output / "work", **budgets)
        corpus = build_corpus([domain], output / "corpus", **events)
        seconds = clock.figures()
    return {
        **seconds,
        "read": domain.report.interactions_read,
        "interactions": corpus.n_events,
        "users": corpus.n_users,
        "items": corpus.n_items,
        "shards": len(domain.shards),
        "fingerprint": corpus.fingerprint(),
        "peak_mib": peak_bytes() / MIB,
    }


def main(data: str) -> None:
    """Compile the simulation first, which is not timed; then prepare what is asked for."""
    prepared(DomainConfig.model_validate(_WARM_UP), Path(data))
    print(json.dumps({"level_mib": peak_bytes() / MIB}), flush=True)
    for line in sys.stdin:
        config = DomainConfig.model_validate_json(line)
        print(json.dumps(prepared(config, Path(data))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
