import io

import pytest
from rich.console import Console

from pipeline import progress as module
from pipeline.progress import Progress
from pipeline.tracking.records import Figures


@pytest.fixture
def log(monkeypatch):
    monkeypatch.setattr(module, "_LINE_EVERY_SECONDS", 0.0)
    return Console(file=io.StringIO(), width=80)


def lines(console):
    return console.file.getvalue().splitlines()


def test_a_log_gets_lines_of_80_columns_with_share_time_left_and_rate(log):
    with Progress(log).stage("train.hydra_single.instruments") as stage:
        for done in range(1, 4):
            stage.update(done, 20, "epochs", "loss 10.972  ndcg@10 0.0180")
    assert len(lines(log)) == 3
    assert all(len(line) <= 80 for line in lines(log))
    assert "15%" in lines(log)[-1]
    assert "left" in lines(log)[-1]


def test_another_unit_has_a_rate_of_its_own(log, monkeypatch):
    times = iter([0.0, 100.0, 200.0, 300.0, 310.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(times))
    with Progress(log).stage("train") as stage:
        for done, unit in ((1, "epochs"), (2, "epochs"), (2, "domains"), (4, "domains")):
            stage.update(done, 6, unit)
    assert "left" not in lines(log)[2]
    assert "0:10 left" in lines(log)[3]


def test_every_stage_is_numbered_and_says_how_it_ended(log):
    progress = Progress(log)
    progress.expect(["corpus", "metrics"])
    with progress.stage("corpus") as stage:
        stage.finish("ran", 125.4)
    with progress.stage("metrics") as stage:
        stage.finish("reused", 0.1)
    assert [line.strip() for line in lines(log)] == [
        "[1/2] corpus: ran in 2:05",
        "[2/2] metrics: reused",
    ]


def test_names_are_not_read_as_markup(log):
    with Progress(log).stage("[red]x[/red]") as stage:
        stage.note("[bold]text[/bold]")
    assert "[red]x[/red]  [bold]text[/bold]" in lines(log)[0]


def test_a_terminal_gets_bars(monkeypatch):
    terminal = Console(file=io.StringIO(), width=80, force_terminal=True)
    progress = Progress(terminal)
    with progress.running(), progress.stage("train") as stage:
        stage.update(1, 2, "steps", "loss 1.0")
    assert "━" in terminal.file.getvalue()


def test_those_who_follow_are_told_figures_of_which_nothing_is_shown(log):
    told = []
    progress = Progress(log)
    progress.follow(lambda stage, figures: told.append((stage, figures)))
    with progress.stage("train") as stage:
        stage.log(Figures({"loss": 1.0}, 3))
    assert told == [("train", Figures({"loss": 1.0}, 3))]
    assert lines(log) == []


def test_a_warning_is_wrapped_at_the_width(log):
    Progress(log).warn("a word " * 40)
    assert len(lines(log)) > 1
    assert all(len(line) <= 80 for line in lines(log))
