"""Prepares one domain in a process of its own: seconds, counts, and peak memory.

    python -m benchmarks.prepare_worker DATA_FOLDER [WORK_FOLDER]

reads a domain's config as JSON from each line of standard input (with `budgets`, if others than
the product's are wanted, see `prepared`), prepares it from its source to the corpus on disk, and
answers with a JSON line. What it writes lies in the work folder (a temporary one) until then. The
peak is the greatest resident memory of the process, which starts no others, since it began, all
that a run imports included: a peak that is to mean something is the first.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# For the level of memory: it brings along all that the corpus stage of a run does.
import pipeline.prepare  # noqa: F401
from pipeline.corpus import build_corpus
from pipeline.domains import DomainConfig, clean_domain
from pipeline.resident_memory import peak_bytes
from pipeline.sources.registry import read_source

MB = 1_000_000
_WARM_UP = {
    "name": "warm-up",
    "source": {"format": "simulated", "catalogue": "books", "population": 50, "items": 40},
}


def prepared(
    config: DomainConfig, data: Path, work: Path | None = None, **budgets: int
) -> dict[str, Any]:
    """Prepare one domain in a temporary folder; figures of it.

    Args:
        config: the domain.
        data: the folder that its relative paths start from.
        work: where the temporary folder is made; None: where the system has them.
        budgets: `working_bytes` and `most_events`, if others than the product's.
    """
    events = {"most_events": budgets.pop("most_events")} if "most_events" in budgets else {}
    with tempfile.TemporaryDirectory(dir=work) as folder:
        output, wall, cpu = Path(folder), time.perf_counter(), time.process_time()
        raw = read_source(config.source, data)
        domain = clean_domain(config, raw, output / "refused", output / "work", **budgets)
        corpus = build_corpus([domain], output / "corpus", **events)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "seconds": wall,
        "cpu_seconds": cpu,
        "read": domain.report.interactions_read,
        "interactions": corpus.n_events,
        "users": corpus.n_users,
        "items": corpus.n_items,
        "shards": len(domain.shards),
        "fingerprint": corpus.fingerprint(),
        "peak_mb": peak_bytes() / MB,
    }


def main(data: str, work: str | None = None) -> None:
    """Compile the simulation first, which is not timed; then prepare what is asked for."""
    prepared(DomainConfig.model_validate(_WARM_UP), Path(data))
    print(json.dumps({"level_mb": peak_bytes() / MB}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        budgets = request.pop("budgets", {})
        config = DomainConfig.model_validate(request)
        answer = prepared(config, Path(data), None if work is None else Path(work), **budgets)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
