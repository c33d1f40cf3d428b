"""Bad input to the job itself: one sentence, status 2, and a run store equal in every byte.

The corpus is made in the driver before Ray starts, so no Ray is needed to refuse one.
"""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.pipeline.faults.tables import source_of, write

pytestmark = pytest.mark.faults
ROOT = Path(__file__).resolve().parents[3]


def _no_utf8(folder):
    write(folder, "parquet")
    text = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"], pa.binary()).buffers())
    table = pa.table({"user_id": text, "item_id": ["a"], "timestamp": [5]})
    pq.write_table(table, folder / "events.parquet")


REFUSED = {
    "a field twice": (
        "jsonl",
        lambda folder: write(
            folder,
            "jsonl",
            extra={"events": b'{"user_id": "u", "item_id": "a", "item_id": "b", "timestamp": 5}'},
        ),
        "events.jsonl:2: has a field twice",
    ),
    "no UTF-8": ("parquet", _no_utf8, "events.parquet:1: is not valid UTF-8"),
    "a line of 20 MB": (
        "csv",
        lambda folder: write(folder, "csv", extra={"items": b"x" * 20_000_000}),
        "items.csv:3: is a line of more than 16 MiB",
    ),
    "milliseconds": (
        "sequences",
        lambda folder: write(folder, "sequences", events=(("u", "a", 1405296000000),)),
        "sequences.tsv.gz:1: a time is not in unix seconds",
    ),
}


def listing(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("fault", REFUSED)
def test_a_refused_input_leaves_the_store_as_it_was(fault, tmp_path):
    kind, make, told = REFUSED[fault]
    make(tmp_path / "data")
    source = source_of(kind)
    for name in ("interactions", "items", "path"):
        if name in source:
            source[name] = str(tmp_path / "data" / source[name])
    domains = [{"name": "shop", "source": source}]
    config = {"store": str(tmp_path / "store"), "models": ["popularity"], "domains": domains}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    kept = tmp_path / "store" / "kept-0123"
    kept.mkdir(parents=True)
    (kept / "file").write_text("kept")
    before = listing(tmp_path / "store")
    command = [sys.executable, "jobs/multidomain.py", "--config", str(tmp_path / "run.yaml")]
    done = subprocess.run(
        [*command, "--run-dir", str(tmp_path / "run")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    (sentence,) = done.stderr.strip().splitlines()
    assert sentence.startswith("error: domain shop: 1 of the first")
    assert told in sentence
    assert listing(tmp_path / "store") == before
