"""A profile's config, and what it measures of a model."""

import json

import pytest

from pipeline.profile_page import profile_table, read_measured, write_measured
from pipeline.profile_study import Measured, ProfileConfig, load_profile, measure


def profile(**fields):
    content = {
        "name": "p", "title": "P", "models": ["hydra_ids", "sasrec"], "lengths": [8, 32],
        "tokens": 100, "repetitions": 2,
        "run": {"user_model": {"dim": 16, "layers": 1}, "sasrec": {"dim": 16, "layers": 1}},
    }  # fmt: skip
    return ProfileConfig.model_validate(content | fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"models": ["popularity"]}, "models: got popularity"),
        ({"models": ["hstu_time"]}, "models: got hstu_time, expected some .* without times"),
        ({"lengths": [8, 101]}, "lengths: got 8 to 101, expected 1 to the 100 of tokens"),
        ({"kind": "other"}, "kind"),
        ({"lenghts": [1]}, "lenghts"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        profile(**fields)


def test_a_mistake_in_a_model_is_told_before_anything_is_measured(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(profile(run={"sasrec": {"dims": 16}}).model_dump_json())
    with pytest.raises(ValueError, match="dims"):
        load_profile(path)


def test_whole_sequences_are_measured():
    row = measure(profile(), "sasrec", 32)
    assert (row.tokens, row.length, len(row.seconds)) == (96, 32, 2)
    assert row.peak_bytes >= 0
    assert row.microseconds > 0
    # d = 16: q, k, v and out with biases, the two layers of the FFN, three norms, 32 positions,
    # and the norm of the input.
    assert row.parameters == 4 * (256 + 16) + 2 * (256 + 16) + 3 * 32 + 32 * 16 + 16


def measured(model, length, seconds):
    return Measured(
        model=model, length=length, tokens=100, seconds=seconds, peak_bytes=5_000, parameters=7
    )


def test_the_table_holds_medians_spreads_and_ratios(tmp_path):
    rows = [
        measured("hydra_ids", 8, (0.002, 0.001, 0.003)),
        measured("sasrec", 8, (0.004, 0.004, 0.005)),
        measured("sasrec", 32, (0.006, 0.006, 0.006)),
    ]
    assert profile_table(profile(), rows).splitlines()[2:] == [
        "| 8 | 20.00 (spread 200%) | 50 | 40.00 (spread 25%) | 50 | 2.00 |",
        "| 32 |  |  | 60.00 (spread 0%) | 50 |  |",
    ]
    file = tmp_path / "results" / "p.json"
    write_measured(file, profile(), rows, "the command")
    assert read_measured(file, profile()) == rows
    assert read_measured(file, profile(tokens=200)) == []
    assert json.loads(file.read_text())["hardware"]["cores"] > 0
