"""Replicas in this process that share a desk and a store, as those of one server do."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.testclient import TestClient

from pipeline import Recommender
from pipeline.serving.desk import Desk
from pipeline.serving.http_app import build_app
from pipeline.serving.live import Wanted
from pipeline.serving.service import Service
from pipeline.serving.store import Store


def wanted(bundle: Path) -> Wanted:
    return Wanted(str(bundle), Recommender.load(bundle).version)


@dataclass
class Replica:
    """One replica in this process: its service, and a client of its app."""

    service: Service
    client: TestClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = TestClient(build_app(self.service), raise_server_exceptions=False)

    def post(self, path: str, **body: Any) -> Any:
        return self.client.post(path, json=body)

    def recommended(self, **body: Any) -> list[tuple[str, float]]:
        answer = self.post("/recommend", **body)
        assert answer.status_code == 200, answer.text
        return [(item["item"], item["score"]) for item in answer.json()["items"]]

    def refused(self, path: str, **body: Any) -> tuple[int, str, str]:
        answer = self.post(path, **body)
        error = answer.json()["error"]
        return answer.status_code, error["code"], error["message"]


@dataclass
class Server:
    """Replicas that share a desk and a store, as those of one server do."""

    desk: Desk
    store: Store
    options: dict[str, Any] = field(default_factory=dict)

    def replica(self) -> Replica:
        return Replica(Service(self.desk, self.store, **self.options))


@contextmanager
def listening(service: Service) -> Iterator[str]:
    """The address at which a replica really listens, for browsers."""
    config = uvicorn.Config(build_app(service), host="127.0.0.1", port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    [listener] = server.servers[0].sockets
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join()
