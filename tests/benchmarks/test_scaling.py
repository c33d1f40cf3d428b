"""benchmarks.scaling finds the growth that is there, and predicts a run that it has not seen."""

import json
from dataclasses import replace

import pytest

from benchmarks import scaling
from benchmarks.scaling_fit import STAGES, TERMS, MeasuredRun, fit, predicted
from benchmarks.scaling_sizes import Sizes

SIZES = Sizes(
    read=9_000, users=1_000, items=200, interactions=8_000, pairs=100_000, texts=150,
    characters=9_000, epochs=2, width=16, batch_tokens=4096, finetuning_texts=64,
    finetuning_batch=16,
)  # fmt: skip
TRUTH = {"corpus": {"1": 0.2, "interactions read": 3e-6, "items": 1e-4}}


def grown(people, items, epochs):
    return replace(
        SIZES,
        **{name: getattr(SIZES, name) * people for name in ("read", "users", "interactions")},
        items=SIZES.items * items,
        pairs=SIZES.pairs * people * items,
        epochs=epochs,
    )


def made_up(sizes):
    """A run whose stages take what TRUTH says, or a second and a MiB."""
    stages = {}
    for stage in STAGES:
        terms = TRUTH.get(stage, {"1": 1.0})
        figure = sum(value * TERMS[term](sizes) for term, value in terms.items())
        stages[stage] = {"cpu_seconds": figure, "extra_mib": figure}
    return MeasuredRun(sizes, stages)


def test_coefficients_come_back_and_predict_a_larger_run():
    runs = [made_up(grown(*growth)) for growth in ((1, 1, 2), (4, 1, 4), (1, 5, 2), (3, 2, 6))]
    formulas = fit(runs)
    corpus = next(f for f in formulas if (f.stage, f.figure) == ("corpus", "cpu_seconds"))
    assert corpus.coefficients == pytest.approx(TRUTH["corpus"], rel=1e-6)
    held_back = made_up(grown(20, 9, 8))
    told = predicted(formulas, held_back.sizes, "cpu_seconds")
    assert told["corpus"] == pytest.approx(held_back.stages["corpus"]["cpu_seconds"])


def test_a_stage_without_a_formula_is_named():
    run = made_up(SIZES)
    unknown = MeasuredRun(SIZES, {**run.stages, "serve": run.stages["corpus"]})
    with pytest.raises(ValueError, match="no formula for the stages serve"):
        fit([unknown])


def finished(capsys, *arguments, docs):
    status = scaling.main(arguments, docs)
    return status, json.loads(capsys.readouterr().out.splitlines()[-1])


def by_section(report, section):
    return [row for row in report["rows"] if row["section"] == section]


@pytest.mark.timeout(900)
def test_every_stage_is_measured_fitted_and_published(capsys, tmp_path):
    status, report = finished(capsys, "--quick", "--publish", docs=tmp_path)
    assert status == int(not all(check["ok"] for check in report["checks"]))
    held_back = by_section(report, "held_back")
    assert {row["stage"] for row in held_back} == set(STAGES)
    cpu = {r["stage"]: r["measured"] for r in held_back if r["figure"] == "cpu_seconds"}
    assert all(seconds > 0 for seconds in cpu.values())
    kept = json.loads((tmp_path / "results" / "scaling.json").read_text())
    assert len(kept["runs"]) == 2
    page = (tmp_path / "scaling.md").read_text()
    assert all(f"`{stage}`" in page for stage in STAGES)
    assert "items that fit a GPU" in page


@pytest.mark.slow
@pytest.mark.timed
@pytest.mark.timeout(3600)
def test_a_run_that_was_held_back_is_predicted_within_20_percent(capsys, tmp_path):
    status, report = finished(capsys, docs=tmp_path)
    assert status == 0, report["checks"]
