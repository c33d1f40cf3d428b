import subprocess
import sys

from tests.processes import ROOT, group


def test_files_with_a_ray_go_together_and_others_alone():
    rays = {"tests/jobs/test_multidomain.py", "tests/pipeline/workers/test_encode.py"}
    assert {group(file) for file in rays} == {"ray"}
    assert group("tests/test_shards.py") == "tests/test_shards.py"


def test_two_processes_run_whole_files():
    files = ["tests/test_shards.py", "tests/pipeline/test_stable_hash.py"]
    command = [sys.executable, "-m", "pytest", "-n", "2", "-v", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if " PASSED " in line]
    ran = {(line[0], line[-1].partition("::")[0]) for line in lines}
    assert sorted(file for _, file in ran) == sorted(files)
    assert len({process for process, _ in ran}) == 2
