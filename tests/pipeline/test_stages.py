import io
import os
import signal
import threading

import pytest
from rich.console import Console

from pipeline.artifacts import RunStore
from pipeline.interrupts import Interrupted, interruptible
from pipeline.progress import Progress
from pipeline.stages import Runner, Stage


class Recipe:
    """A graph a -> b -> d, a -> c -> d whose stages note that they ran."""

    def __init__(self, fail: str | None = None, **fields: int) -> None:
        self.ran: list[str] = []
        self.fail = fail
        fields = {"a": 1, "b": 1, "c": 1, "d": 1} | fields
        a = self.stage("a", fields["a"])
        b, c = self.stage("b", fields["b"], a), self.stage("c", fields["c"], a)
        self.last = self.stage("d", fields["d"], b, c)

    def stage(self, name, field, *inputs):
        def make(context):
            self.ran.append(name)
            read = [(path / "out").read_text() for path in context.inputs.values()]
            (context.scratch / "checkpoint").write_text("half")
            if self.fail == name:
                raise RuntimeError(f"{name} died")
            (context.output / "out").write_text(f"{name}{field}({','.join(sorted(read))})")
            return {"peak_mb": 1.5}

        return Stage(name, {"field": field}, make, inputs)


@pytest.fixture
def run(tmp_path):
    console = Console(file=io.StringIO(), width=80)

    def run(recipe):
        runner = Runner(RunStore(tmp_path), Progress(console), slots=2)
        results = runner.run([recipe.last])
        return {name: result.status for name, result in results.items()}, results

    return run


def test_everything_runs_once_inputs_first(run):
    recipe = Recipe()
    statuses, results = run(recipe)
    assert sorted(recipe.ran) == ["a", "b", "c", "d"]
    assert recipe.ran[0] == "a"
    assert recipe.ran[-1] == "d"
    assert set(statuses.values()) == {"ran"}
    assert (results["d"].artifact.path / "out").read_text() == "d1(b1(a1()),c1(a1()))"
    assert list(results["d"].artifact.files) == ["out"], "scratch is not part of the output"
    assert results["a"].facts["peak_mb"] == 1.5


def test_second_run_does_nothing(run):
    run(Recipe())
    again = Recipe()
    statuses, _ = run(again)
    assert again.ran == []
    assert set(statuses.values()) == {"reused"}


@pytest.mark.parametrize(
    ("changed", "expected"), [("a", "abcd"), ("b", "bd"), ("c", "cd"), ("d", "d")]
)
def test_a_changed_field_runs_again_only_what_depends_on_it(run, changed, expected):
    run(Recipe())
    again = Recipe(**{changed: 2})
    run(again)
    assert sorted(again.ran) == sorted(expected)
    back = Recipe()
    run(back)
    assert back.ran == [], "the old outputs are still there"


@pytest.mark.faults
def test_after_a_crash_finished_stages_are_not_run_again_and_the_broken_one_resumes(run):
    with pytest.raises(RuntimeError, match="c died"):
        run(Recipe(fail="c"))
    again = Recipe()
    statuses, _ = run(again)
    assert "a" not in again.ran
    assert statuses["c"] == "resumed"
    assert statuses["a"] == "reused"


@pytest.mark.faults
def test_a_damaged_output_is_made_again(run, caplog):
    _, results = run(Recipe())
    (results["b"].artifact.path / "out").write_text("wrong")
    again = Recipe()
    run(again)
    assert again.ran == ["b"], "its content is what it was, so nothing after it changes"
    assert "is damaged" in caplog.text


def test_stages_run_side_by_side_within_the_slots(tmp_path):
    meet = threading.Barrier(2, timeout=20)

    def make(context):
        meet.wait()

    pair = [Stage(name, {}, make) for name in ("left", "right")]
    Runner(RunStore(tmp_path), Progress(Console(file=io.StringIO())), slots=2).run(pair)


def test_a_stage_of_two_slots_runs_alone(tmp_path):
    active, most = [], []

    def make(context):
        active.append(1)
        most.append(len(active))
        threading.Event().wait(0.05)
        active.pop()

    wide = [Stage(name, {}, make, slots=2) for name in ("one", "two", "three")]
    Runner(RunStore(tmp_path), Progress(Console(file=io.StringIO())), slots=2).run(wide)
    assert max(most) == 1


def test_a_wide_stage_is_not_overtaken_for_ever(tmp_path):
    order = []

    def make(context):
        order.append(context.output.name.split("-")[0])
        threading.Event().wait(0.02)

    narrow = [Stage(f"narrow{i}", {}, make) for i in range(6)]
    stages = [narrow[0], Stage("wide", {}, make, slots=2), *narrow[1:]]
    Runner(RunStore(tmp_path), Progress(Console(file=io.StringIO())), slots=2).run(stages)
    assert order[:2] == ["narrow0", "wide"]


def _to_another_thread():
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)


def _to_the_process():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("interrupt", [_to_the_process, _to_another_thread])
def test_an_interrupted_run_does_not_wait_and_keeps_what_was_begun(tmp_path, interrupt):
    """Its workers are lost under the stage: a ValueError then is not the user's mistake.

    A signal to another thread leaves the waiting one asleep, as does one that comes a moment
    before it sleeps.
    """
    begun, lost, ended = threading.Event(), threading.Event(), threading.Event()

    def make(context):
        (context.scratch / "checkpoint").write_text("half")
        begun.set()
        lost.wait(20)
        try:
            raise ValueError("the worker is gone")
        finally:
            ended.set()

    stage = Stage("train", {}, make)
    runner = Runner(RunStore(tmp_path), Progress(Console(file=io.StringIO())), slots=1)
    with pytest.raises(Interrupted), interruptible():
        threading.Thread(target=lambda: (begun.wait(20), interrupt())).start()
        runner.run([stage])
    assert not ended.is_set(), "it did not wait"
    lost.set()
    assert ended.wait(20)
    kept = tmp_path / ".work" / f"train-{stage.key[:16]}" / ".scratch" / "checkpoint"
    assert RunStore(tmp_path).state("train", stage.key) == "begun"
    assert kept.read_text() == "half"


def test_figures_of_a_stage_tell_its_cost(tmp_path):
    told = []
    progress = Progress(Console(file=io.StringIO()))
    progress.follow(lambda stage, figures: told.append((stage, figures.values)))
    store = RunStore(tmp_path)
    stage = Stage("corpus", {}, lambda _: {"peak_mb": 12.5})
    assert store.state("corpus", stage.key) == "to do"
    Runner(store, progress, slots=1).run([stage])
    assert store.state("corpus", stage.key) == "done"
    ((name, values),) = told
    assert name == "corpus"
    assert values["peak_mb"] == 12.5
    assert values["run_seconds"] >= values["made_in_seconds"] >= 0
