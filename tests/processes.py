"""Which of several processes runs a test: `pytest -n 2`, as `make test` does.

Tests of one file share what its fixtures made, so a file stays whole. All that need a Ray stay in
one process: two Rays at work at a time would take the cores from each other. (xdist's own groups,
`--dist loadgroup`, do nothing with this pytest, which keeps the names that they change.)
"""

from functools import cache
from pathlib import Path

from xdist.scheduler.loadscope import LoadScopeScheduling

ROOT = Path(__file__).resolve().parents[1]
RAY = "ray"
_NEEDS_RAY = ("mark.ray", "ray_session")


class FilesApart(LoadScopeScheduling):
    """Deals out files."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid.partition("::")[0])


@cache
def group(file: str) -> str:
    """What is dealt out as one: a file, or all files that need a Ray."""
    text = (ROOT / file).read_text(encoding="utf-8")
    return RAY if any(sign in text for sign in _NEEDS_RAY) else file
