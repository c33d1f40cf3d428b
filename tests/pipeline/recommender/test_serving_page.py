"""The Python of docs/serving.md and of README.md, run as it is written."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("page", "blocks", "user"), [("docs/serving.md", 2, "state"), ("README.md", 2, "user")]
)
def test_python_runs(bundle, tmp_path, monkeypatch, page, blocks, user):
    shutil.copytree(bundle, tmp_path / "bundles" / "demo")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    found = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.S | re.M)
    assert len(found) == blocks
    for number, text in enumerate(found):
        exec(compile(text, f"{page}, block {number}", "exec"), names)
    assert names[user].events.tolist() == [4]
    assert names.get("row") in (None, 60)


def test_importing_the_package_imports_no_model():
    program = (
        "import sys, pipeline; assert 'torch' not in sys.modules; "
        "from pipeline import Recommender; "
        "assert not {'ray', 'pipeline.config', 'transformers'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
