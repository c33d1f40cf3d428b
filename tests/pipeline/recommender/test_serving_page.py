"""The Python of docs/serving.md, run as it is written."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "docs" / "serving.md"


def test_python_runs(bundle, tmp_path, monkeypatch):
    shutil.copytree(bundle, tmp_path / "bundles" / "demo")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    found = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.S | re.M)
    assert len(found) == 2
    for number, text in enumerate(found):
        exec(compile(text, f"serving.md, block {number}", "exec"), names)
    assert names["row"] == 60
    assert names["state"].events.tolist() == [4]


def test_importing_the_package_imports_no_model():
    program = (
        "import sys, pipeline; assert 'torch' not in sys.modules; "
        "from pipeline import Recommender; "
        "assert not {'ray', 'pipeline.config', 'transformers'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
