"""ASHA that knows what trials did before a search was stopped."""

from types import SimpleNamespace

import pytest

from pipeline.search_trial import METRIC, TrialRecord
from pipeline.workers.search import ResumedASHA

RUNGS = (2, 6, 18)


def record(number, status, *figures):
    rungs = dict(zip(RUNGS, figures, strict=False))
    return TrialRecord(number=number, values={}, status=status, rungs=rungs)


def trial(number):
    return SimpleNamespace(trial_id=f"new-{number}", config={"number": number})


def decisions(scheduler, number, *figures):
    """What is decided for one trial at each of its rungs."""
    given = trial(number)
    scheduler.on_trial_add(None, given)
    told = zip(RUNGS, figures, strict=False)
    return [
        scheduler.on_trial_result(None, given, {"epoch": rung, METRIC: figure})
        for rung, figure in told
    ]


def test_earlier_trials_are_compared_with():
    earlier = [record(0, "complete", 0.5, 0.6, 0.7), record(1, "stopped", 0.3)]
    fresh = ResumedASHA(RUNGS, 3, [])
    assert decisions(fresh, 2, 0.4, 0.55) == ["CONTINUE", "CONTINUE"], "nothing to compare with"
    resumed = ResumedASHA(RUNGS, 3, earlier)
    assert decisions(resumed, 2, 0.4) == ["STOP"]
    assert decisions(resumed, 3, 0.5, 0.55) == ["CONTINUE", "STOP"]
    assert decisions(resumed, 4, 0.5, 0.6, 0.1) == ["CONTINUE", "CONTINUE", "STOP"], "its end"


@pytest.mark.parametrize("order", [1, -1])
def test_resumed_and_uninterrupted_searches_decide_alike(order):
    figures = {0: (0.5, 0.6), 1: (0.3,), 2: (0.45, 0.7), 3: (0.2,)}
    through = ResumedASHA(RUNGS, 3, [])
    for number, told in figures.items():
        decisions(through, number, *told)
    # Trials 0 and 2 were running when the search was killed, at the rungs they had passed.
    records = [
        record(number, "running" if len(told) > 1 else "stopped", *told)
        for number, told in figures.items()
    ]
    resumed = ResumedASHA(RUNGS, 3, records)
    for number in (0, 2)[::order]:
        resumed.on_trial_add(None, trial(number))
    for figure in (0.1, 0.44, 0.46, 0.5):
        number = 10 + int(100 * figure)
        assert decisions(through, number, figure, figure) == decisions(
            resumed, number, figure, figure
        )
