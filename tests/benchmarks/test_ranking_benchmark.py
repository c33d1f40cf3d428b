import json

from benchmarks import ranking


def test_it_checks_equality_and_measures_all_forms(capsys):
    assert ranking.main(["--items", "20000", "--repetitions", "1"]) in (0, 1)
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    checks = {check["name"]: check for check in report["checks"]}
    assert checks["20,000 items: scores, ours - full sort"]["value"] < 1e-5
    assert checks["20,000 items: memory, matrix and topk / ours"]["value"] > 2
    assert {row["form"] for row in report["rows"]} == {
        "ours",
        "matrix",
        "product",
        "product, one call",
    }


def test_another_result_is_not_timed(capsys, monkeypatch):
    monkeypatch.setattr(ranking.Problem, "ours", lambda self: wrong(self))
    assert ranking.main(["--items", "5000", "--repetitions", "1"]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == []


def wrong(problem):
    found = ranking.top_items(problem.users, [problem.items.numpy()], ranking.K)
    return type(found)(found.rows[:, ::-1], found.scores[:, ::-1], found.counts)
