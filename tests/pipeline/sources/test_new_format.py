"""The whole format in CONTRIBUTING.md: one more file in the folder of formats, and it works."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("jobs", "pipeline", "item_llm", "user_model")
TALLY = "2024-05-01|anna|lamp-7\n2024-05-02|anna|desk-1\nsoon|ben|lamp-7\n2024-05-03|ben\n"
GOODS = "lamp-7|Desk lamp\ndesk-1|Oak desk\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with the example as one more file."""
    copy = tmp_path_factory.mktemp("project")
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## A new source format")[1]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.S)
    (copy / "pipeline" / "sources" / "formats" / "tally.py").write_text(block)
    return copy


def run(project, *arguments):
    environment = os.environ | {"PYTHONPATH": str(project), "HYDRAREC_DATA": str(project)}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=project, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_example_is_read_by_the_code_that_reads_all_formats(project, tmp_path):
    (tmp_path / "shop.tally").write_text(TALLY)
    (tmp_path / "shop.goods").write_text(GOODS)
    config = tmp_path / "run.yaml"
    told = run(project, "jobs/ingest.py", "--check", tmp_path, "--name", "shop", "--out", config)
    assert (told.returncode, told.stderr) == (0, "")
    for line in (
        "interactions   2",
        "times          2024-05-01 to 2024-05-02",
        "texts          2 of 2 items that somebody had have one",
        "refused        2",
        "  shop.tally:3: 'soon|ben|lamp-7'",
        "  shop.tally:4: '2024-05-03|ben'",
        "  lamp-7: Desk lamp",
        "    format: tally",
    ):
        assert f"\n{line}\n" in told.stdout
    program = (
        "import sys; from pathlib import Path; from pipeline.config import load; "
        "from pipeline.sources.registry import read_source; "
        "(domain,) = load(Path(sys.argv[1])).domains; "
        "print(read_source(domain.source, Path()).whole().interactions.rows())"
    )
    again = run(project, "-c", program, config)
    assert again.stdout == "[('anna', 'lamp-7', 1714521600), ('anna', 'desk-1', 1714608000)]\n"


def test_the_example_is_in_the_help(project):
    told = run(project, "jobs/ingest.py", "--help")
    assert "tally" in told.stdout


def test_the_example_is_written_as_the_rest_is(project):
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent))
    if ruff is None:
        pytest.skip("needs ruff: make check installs it")
    example = project / "pipeline" / "sources" / "formats" / "tally.py"
    for command in (["format", "--check"], ["check"]):
        options = ["--config", ROOT / "pyproject.toml", "--no-cache", example]
        done = subprocess.run([ruff, *command, *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
