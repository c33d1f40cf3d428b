"""What all tests share: one Ray for the session, and where data outside the project are."""

import importlib.util
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from tests.processes import FilesApart
from tests.shards import dealing_order, parsed_shard, shards

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shard", metavar="N/COUNT", help="run a COUNTth of the files, by the time they take"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if (wanted := config.getoption("--shard")) is not None:
        number, count = parsed_shard(wanted)
        files = shards([item.path for item in items], count)[0][number - 1]
        config.hook.pytest_deselected(items=[item for item in items if item.path not in files])
        items[:] = [item for item in items if item.path in files]
    if hasattr(config, "workerinput"):  # one of several processes
        order = dealing_order({item.path for item in items})
        items.sort(key=lambda item: order[item.path])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Whole files to each process of tests, as ordered; all that need a Ray to one of them."""
    config.option.loadscopereorder = False
    return FilesApart(config, log)


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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of a real server that speaks S3 over HTTP (moto)."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("moto[server] is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


@pytest.fixture(scope="session")
def s3_environment(s3_server: str) -> dict[str, str]:
    """What a process must have in its environment to use the server."""
    return {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "very-secret",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def new_bucket(server: str) -> str:
    """The address of a fresh bucket."""
    name = f"bucket-{secrets.token_hex(6)}"
    urllib.request.urlopen(urllib.request.Request(f"{server}/{name}", method="PUT")).close()
    return f"s3://{name}"


@pytest.fixture(scope="session")
def shared_bucket(s3_server: str) -> str:
    """A bucket for the whole session."""
    return new_bucket(s3_server)


@pytest.fixture
def bucket(s3_server: str, s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """An address in a bucket of its own; endpoint and credentials are in the environment."""
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    return f"{new_bucket(s3_server)}/vectors"
