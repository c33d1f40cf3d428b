"""Servers' surroundings: a real Redis where one is installed, bundles of real small runs."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import Recommender
from pipeline.serving.desk import Desk
from pipeline.serving.memory_store import MemoryStore
from tests.beside import load

ROOT = Path(__file__).resolve().parents[3]
SHOP = {"format": "simulated", "population": 300, "mean_history": 6}


in_process_server = load(Path(__file__).with_name("in_process_server.py"))
chromium = load(ROOT / "tests" / "pipeline" / "report" / "chromium.py")
Server, Replica, wanted = (
    getattr(in_process_server, name) for name in ("Server", "Replica", "wanted")
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis of the tests' own."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs redis-server, which is not installed")
    port, folder = free_port(), tmp_path_factory.mktemp("redis")
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    process = subprocess.Popen([*command, "--save", ""], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    yield f"redis://127.0.0.1:{port}/0"
    process.terminate()
    process.wait()


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The same, emptied."""
    import redis

    redis.Redis.from_url(redis_server).flushall()
    return redis_server


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """trained(name, epochs=2, items=60): the bundle of a small run, made in this process."""
    from pipeline.config import RunConfig
    from pipeline.export import export
    from pipeline.progress import Progress
    from pipeline.run import execute

    folder = tmp_path_factory.mktemp("bundles")

    def make(name: str, *, epochs: int = 2, items: int = 60, **split: Any) -> Path:
        sources = {"books": {"share": 0.8, "items": items}, "garden": {"share": 0.4, "items": 40}}
        config = {
            **{"name": name, "store": str(folder / "store"), "models": ["hydra_joint"]},
            "domains": [
                {"name": domain, "source": SHOP | {"catalogue": domain} | part}
                for domain, part in sources.items()
            ],
            "compute": {"in_process": True, "workers": 1},
            "split": split,
            "item_llm": {"encoder": {"base": "minilm", "max_tokens": 16}, "lora": None},
            "user_model": {
                **{"dim": 16, "items": {"text_channel": True}},
                "training": {"epochs": epochs, "negatives": 32},
            },
        }
        execute(RunConfig.model_validate(config), folder / name, Progress())
        return export(folder / name, output=folder / f"bundle-{name}")

    return make


@pytest.fixture(scope="session")
def bundle(trained) -> Path:
    """A bundle of two domains, books and garden."""
    return trained("tiny")


@pytest.fixture(scope="session")
def other_bundle(trained) -> Path:
    """The same items, other weights."""
    return trained("longer", epochs=3)


@pytest.fixture(scope="session")
def recommender(bundle: Path) -> Recommender:
    """What answers must be equal to; tests do not add items to it."""
    return Recommender.load(bundle)


@pytest.fixture
def server(bundle: Path) -> Server:
    return Server(Desk(wanted(bundle)), MemoryStore(1 << 24, 3_600))


@pytest.fixture
def replica(server: Server) -> Replica:
    return server.replica()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium; its tests are skipped where there is none."""
    program = chromium.installed()
    if program is None:
        pytest.skip(f"needs a browser to lay the page out: none of {', '.join(chromium.NAMES)}")
    with chromium.running(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened
