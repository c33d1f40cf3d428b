"""The benchmark of HTTP, so small that its figures mean nothing, on a real server."""

import json

from benchmarks import http


def test_load_swaps_and_a_kill_are_measured(capsys, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert http.main(["--quick"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    checks = {check["name"]: check["value"] for check in report["checks"]}
    assert checks["answers that differ from the Recommender's"] == 0
    assert checks["load: errors"] == checks["swap: errors"] == 0
    assert checks["swap: bundles taken over"] == 3
    rows = {row["section"]: row for row in report["rows"]}
    assert rows["load"]["requests"] >= 100
    assert len(rows["swap"]["versions"]) == 2
    assert rows["kill"]["lost_users"] == 0
