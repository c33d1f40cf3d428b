"""benchmarks.cache measures each of its parts, also where there is little to measure."""

import json
import subprocess
import sys


def test_every_part_is_measured():
    command = [sys.executable, "-m", "benchmarks.cache", "--texts", "2000", "--million", "3000"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["benchmark"] == "cache"
    names = [check["name"] for check in report["checks"]]
    assert len(names) == len(set(names)) >= 7
    assert all(check["value"] > 0 for check in report["checks"])
    assert done.returncode == int(not all(check["ok"] for check in report["checks"]))
    assert {"snapshot", "items"} <= {key for row in report["rows"] for key in row}
