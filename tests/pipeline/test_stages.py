import io
import threading

import pytest
from rich.console import Console

from pipeline.artifacts import RunStore
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


def test_after_a_crash_finished_stages_are_not_run_again_and_the_broken_one_resumes(run):
    with pytest.raises(RuntimeError, match="c died"):
        run(Recipe(fail="c"))
    again = Recipe()
    statuses, _ = run(again)
    assert "a" not in again.ran
    assert statuses["c"] == "resumed"
    assert statuses["a"] == "reused"


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
