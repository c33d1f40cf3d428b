"""One trial of a search, without Ray: its rungs, its resuming, and what it never looks at."""

import contextlib
import json

import pytest

from pipeline.config import RunConfig
from pipeline.corpus import build_corpus
from pipeline.search_config import SearchConfig
from pipeline.search_space import plan_trials
from pipeline.search_trial import TrialFolder, run_trial
from pipeline.task_data import TaskData
from pipeline.user_model_task import TaskFolders
from pipeline.user_models import train_user_model
from user_model import Workers

RUNGS = (2, 4, 6)
USERS, ITEMS = 40, 24
TRAINING = {"epochs": 6, "negatives": 8, "warmup_steps": 2, "min_epoch_steps": 4}


def events(*, test_shift=0, validation_shift=0):
    """Users with five training events, a validation event and a test event.

    The shifts give users each other's last two items; no count of an item changes by them.
    """
    rows = []
    for user in range(USERS):
        items = [f"i{(user + 5 * k) % ITEMS:02d}" for k in range(5)]
        items.append(f"v{(user + validation_shift) % 8}")
        items.append(f"t{(user + test_shift) % 8}")
        rows += [(f"u{user}", item, 1000 + 10 * place) for place, item in enumerate(items)]
    return rows


@pytest.fixture(scope="module")
def folders_of(domain_of, tmp_path_factory):
    """folders_of(name=events): the folders of a corpus."""

    def build(**domains):
        folder = tmp_path_factory.mktemp("corpus")
        build_corpus([domain_of(name, rows) for name, rows in domains.items()], folder)
        return TaskFolders(corpus=folder, vectors=None)

    return build


@pytest.fixture(scope="module")
def folders(folders_of):
    return folders_of(books=events(), games=events(validation_shift=3))


def plan_of(domains=("books", "games"), model="hydra_ids", **training):
    part = "sasrec" if model == "sasrec" else "user_model"
    source = {"format": "simulated", "catalogue": "books"}
    shops = [{"name": name, "source": source} for name in domains]
    settings = {"dim": 16, "layers": 1, "training": TRAINING | training}
    config = RunConfig.model_validate({"domains": shops, part: settings})
    fields = {"model": model, "trials": 1, "grace_epochs": 2}
    space = {f"{part}.dropout": {"choice": [0.2]}}
    search = SearchConfig.model_validate(fields | {"space": space})
    return plan_trials(search, config, "space.yaml")[0]


class Stopped(BaseException):
    """What a killed process looks like from inside."""


def told(plan, folders, trials, *, stop_at=None):
    """Run the trial until it ends or is stopped; what it reported, and its record."""
    reports = []

    def report(rung, figure):
        reports.append((rung, figure))
        if rung == stop_at:
            raise Stopped

    with contextlib.suppress(Stopped):
        run_trial(plan, folders, RUNGS, trials, report)
    return reports, TrialFolder(trials, plan).read()


@pytest.mark.parametrize(
    ("model", "domains"),
    [
        ("hydra_ids", ("books", "games")),
        ("sasrec", ("books",)),
        ("hydra_joint", ("books", "games")),
    ],
)
def test_rungs_end_with_the_figures_of_trainings_in_one_go(model, domains, folders, tmp_path):
    plan = plan_of(domains, model)
    reports, record = told(plan, folders, tmp_path / "trials")
    whole = []
    for task in plan.tasks:
        output = tmp_path / (task.domain or "all")
        output.mkdir()
        data = TaskData(task, folders)
        whole.append(train_user_model(data, Workers(), output, output / "scratch", lambda *_: None))
    figures = [facts["validation_ndcg@10"] for facts in whole]
    assert reports[-1] == (6, pytest.approx(sum(figures) / len(figures), abs=0))
    assert record.status == "complete"
    assert [rung for rung, _ in reports] == list(RUNGS)
    assert [figure for _, figure in reports] == sorted(figure for _, figure in reports)
    assert record.epochs == sum(facts["epochs"] for facts in whole)
    assert [task.best_epoch for task in record.tasks.values()] == [f["best_epoch"] for f in whole]
    assert record.cpu_seconds > 0
    assert record.seconds > 0


@pytest.mark.faults
def test_a_killed_trial_goes_on_to_the_same_figures(folders, tmp_path):
    plan = plan_of()
    expected, whole = told(plan, folders, tmp_path / "whole")
    first, record = told(plan, folders, tmp_path / "parts", stop_at=2)
    assert record.status == "running"
    second, _ = told(plan, folders, tmp_path / "parts", stop_at=4)
    third, record = told(plan, folders, tmp_path / "parts")
    assert first + second + third == expected, "each rung is told once, bit for bit"
    ignored = {"seconds", "cpu_seconds"}
    assert record.model_dump(exclude=ignored) == whole.model_dump(exclude=ignored)
    assert told(plan, folders, tmp_path / "parts")[0] == [], "a trial that is over is left alone"


def test_test_events_decide_nothing_and_validation_events_do(folders_of, tmp_path):
    """The same trial where all users have other test items: the same figures, bit for bit."""
    plan = plan_of(("books",))
    figures = {}
    for name, shifts in {
        "given": {},
        "other tests": {"test_shift": 3},
        "other validation": {"validation_shift": 3},
    }.items():
        figures[name], _ = told(plan, folders_of(books=events(**shifts)), tmp_path / name)
    assert figures["other tests"] == figures["given"]
    assert figures["other validation"] != figures["given"]


def test_no_test_case_is_built(folders, tmp_path, monkeypatch):
    asked = []
    build = TaskData.cases

    def cases(self, domain, role):
        asked.append(role)
        return build(self, domain, role)

    monkeypatch.setattr(TaskData, "cases", cases)
    told(plan_of(), folders, tmp_path)
    assert set(asked) == {"validation"}


def test_a_trial_that_stops_early_counts_at_later_rungs(folders, tmp_path):
    reports, record = told(plan_of(("books",), lr=1e-9, patience=1), folders, tmp_path)
    assert record.status == "complete"
    assert record.epochs < 6
    assert [rung for rung, _ in reports] == list(RUNGS)
    assert len({figure for _, figure in reports}) == 1


def test_what_goes_wrong_is_the_trials_result(tmp_path):
    plan = plan_of(("books",))
    reports, record = told(plan, TaskFolders(corpus=tmp_path / "absent", vectors=None), tmp_path)
    assert reports == []
    assert record.status == "failed"
    assert "absent" in record.error


def test_a_trial_that_others_beat_keeps_its_record_alone(folders, tmp_path):
    plan = plan_of(("books",))
    told(plan, folders, tmp_path, stop_at=2)
    folder = TrialFolder(tmp_path, plan)
    assert (folder.path / "books").is_dir()
    assert folder.end("stopped").status == "stopped"
    assert [path.name for path in folder.path.iterdir()] == ["trial.json"]
    assert json.loads((folder.path / "trial.json").read_text())["rungs"].keys() == {"2"}
    assert folder.end("failed").status == "stopped", "what is over stays as it is"
