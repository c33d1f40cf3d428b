"""The section `growth` of `benchmarks.prepare`: equality, then time and memory over the size."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from benchmarks.harness import Timing
from benchmarks.json_worker import ROOT, JsonWorker
from benchmarks.prepare_worker import prepared
from benchmarks.scan_report import Report
from benchmarks.simulate_worker import MADE, made
from pipeline.domains import DomainConfig
from pipeline.sources.simulated import SimulatedConfig, read_simulated
from pipeline.sources.written_tables import INTERACTIONS, ITEMS
from pipeline.whole_files import read_json

PEAK_MB_BAR = 2000
FLATNESS_BAR = 1.2
_SMALL = 20_000
# Seconds that a small size takes are disturbed by what else runs: the median of several runs.
_REPEATED, _REPETITIONS = 2_000_000, 5
_REFERENCE = ROOT / "tests" / "pipeline" / "reference_corpus.py"


def growth_section(report: Report, sizes: Sequence[int], folder: Path) -> None:
    """Check equality at a small size; then a row a size, the peaks and the flatness.

    Args:
        report: is written to.
        sizes: interactions, increasing.
        folder: for tables, work and corpora; tables that are there are used.
    """
    report.title("Simulated shops: tables made, then prepared to a corpus on disk")
    with TemporaryDirectory() as small:
        differ = differences(shop(_SMALL), Path(small))
    report.check("corpora that differ from the specification", differ, 0, "most")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(report, size, folder) for size in sizes]
    for kind, told in (("made_peak_mb", "making"), ("peak_mb", "preparing")):
        name = f"peak MB of {told} {sizes[-1]:,}"
        report.check(name, rows[-1][kind], PEAK_MB_BAR, "most")
    ratio = rows[-1]["cpu_us_each"] / rows[0]["cpu_us_each"]
    name = f"CPU time an interaction, {sizes[-1]:,} / {sizes[0]:,}"
    report.check(name, ratio, FLATNESS_BAR, "most")


def shop(interactions: int) -> SimulatedConfig:
    """A simulated shop of about so many interactions: ten a person, twenty an item."""
    fields = {"population": interactions // 10, "items": interactions // 20, "mean_history": 10}
    return SimulatedConfig.model_validate({"catalogue": "books", "share": 1.0, **fields})


def from_files(folder: Path) -> DomainConfig:
    """The domain whose tables `written_tables` wrote to a folder, a 5-core."""
    files = {"interactions": str(folder / INTERACTIONS), "items": str(folder / ITEMS)}
    return _domain({"format": "table", **files})


def differences(source: SimulatedConfig, folder: Path) -> int:
    """How many ways of preparing a shop give another corpus than the specification: 0."""
    made(source, folder / "tables")
    tables = from_files(folder / "tables")
    parts = {"working_bytes": 100_000, "most_events": 5_000}
    figures = [prepared(tables, folder), prepared(tables, folder, **parts)]
    assert figures[1]["shards"] > 1, "the parts were too large to be several"
    specified = _reference().reference_domain(tables, folder)
    fingerprint = _reference().reference_corpus([specified])["fingerprint"]
    direct, written = (
        raw.whole()
        for raw in (read_simulated(source), _reference().read_source(tables.source, folder))
    )
    same_tables = all(
        getattr(direct, name).equals(getattr(written, name)) for name in ("interactions", "items")
    )
    return sum(one["fingerprint"] != fingerprint for one in figures) + (not same_tables)


def _row(report: Report, size: int, folder: Path, **budgets: int) -> dict[str, Any]:
    """Make the tables of a size, where they are not there; prepare them; tell."""
    tables = folder / f"books-{size}"
    making = _made(report, size, tables)
    report.note(f"preparing {making['interactions']:,} interactions ...")
    with JsonWorker(
        "benchmarks.prepare_worker", [str(ROOT), str(folder)], python=Path(sys.executable)
    ) as worker:
        request = from_files(tables).model_dump(mode="json") | {"budgets": budgets}
        times = _REPETITIONS if size <= _REPEATED else 1
        answers = [worker.ask(request) for _ in range(times)]
    answer = answers[0]  # its peak is the first; the later ones begin with memory that is there
    spread = Timing.of([one["cpu_seconds"] for one in answers])
    answer["seconds"] = median(one["seconds"] for one in answers)
    answer["cpu_seconds"] = spread.median
    each = {
        f"{kind}us_each": 1e6 * answer[f"{kind}seconds"] / answer["read"] for kind in ("", "cpu_")
    }
    of_making = {f"made_{name}": making[name] for name in ("seconds", "cpu_seconds", "peak_mb")}
    figures = answer | each | of_making
    report.row(
        f"{answer['read']:>11,}  {answer['users']:>10,} users  {answer['items']:>9,} items  made: "
        f"{making['cpu_seconds']:.1f} s CPU, peak {making['peak_mb']:.0f} MB  prepared: "
        f"{answer['seconds']:.1f} s, CPU {spread} "
        f"({each['cpu_us_each']:.2f} us each), peak {answer['peak_mb']:.0f} MB "
        f"(at first {worker.hello['level_mb']:.0f})",
        section="growth", size=size, repetitions=times, **figures, **worker.hello,
    )  # fmt: skip
    return figures


def _made(report: Report, size: int, tables: Path) -> dict[str, Any]:
    source = shop(size).model_dump(mode="json")
    if (tables / MADE).exists():
        figures: dict[str, Any] = read_json(tables / MADE)
        if figures["source"] != source:
            raise SystemExit(f"{tables} holds another shop's tables: remove the folder")
        return figures
    report.note(f"making {size:,} interactions ...")
    with JsonWorker("benchmarks.simulate_worker", [], python=Path(sys.executable)) as worker:
        return worker.ask({"source": source, "folder": str(tables.absolute())})


def _domain(source: dict[str, Any]) -> DomainConfig:
    domain = {"name": "books", "source": source, "cleaning": {"k_core": 5}}
    return DomainConfig.model_validate(domain)


def _reference() -> ModuleType:
    """The specification of preparing, which stands with the tests."""
    name = "reference_corpus"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _REFERENCE)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
