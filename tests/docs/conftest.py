"""The site, built once for all tests of the documentation, and a browser to look at it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.beside import load

ROOT = Path(__file__).resolve().parents[2]


for name in ("page_parts", "command_tests"):
    load(Path(__file__).with_name(f"{name}.py"))
chromium = load(ROOT / "tests" / "pipeline" / "report" / "chromium.py")


@dataclass(frozen=True)
class Site:
    """The folder of the built site, and what the build printed."""

    folder: Path
    output: str

    def pages(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*.html") if path.name != "404.html")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The site as `make docs` builds it, but in a folder of the tests."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return Site(folder, done.stdout)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium; its tests are skipped where there is none."""
    program = chromium.installed()
    if program is None:
        pytest.skip(f"needs a browser to lay pages out: none of {', '.join(chromium.NAMES)}")
    with chromium.running(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened
