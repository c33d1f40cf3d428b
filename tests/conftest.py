"""What all tests share: one Ray for the session, and where data outside the project are."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("HYDRAREC_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the data folder {folder} (set HYDRAREC_DATA)")
    return folder


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One real Ray for all tests that run work on it in this process."""
    from pipeline.workers.cluster import ComputeConfig, connected

    os.environ.pop("RAY_ADDRESS", None)
    with connected(ComputeConfig()):
        yield
