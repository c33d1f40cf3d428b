import json

import pytest

from benchmarks import streaming


@pytest.mark.parametrize("more", [[], ["--text-channel"]])
def test_it_checks_equality_and_measures_all_forms(capsys, more):
    options = ["--users", "40", "--items", "210", "--repetitions", "1", *more]
    assert streaming.main(options) in (0, 1)
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    checks = {check["name"]: check for check in report["checks"]}
    assert checks["scores, streamed - evaluation: largest difference"]["ok"]
    assert [c["ok"] for name, c in checks.items() if "ten best" in name] == [True]
    forms = [row["form"] for row in report["rows"] if "form" in row]
    assert forms == [
        *(f"history {n:,}" for n in streaming.HISTORIES),
        "SASRec",
        "update_many",
        "SASRec",
    ]
