"""`jobs/serve.py` with a real Ray Serve: two replicas, a swap, a kill and a restart, under load."""

import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline import Recommender

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 180


@dataclass
class ServeJob:
    """`python jobs/serve.py` as a process of its own."""

    bundle: Path
    folder: Path
    port: int
    store: str
    process: subprocess.Popen | None = None

    def command(self, *more: str) -> list[str]:
        control = str(self.folder / "control")
        return [
            sys.executable,
            "jobs/serve.py",
            *more,
            "--port",
            str(self.port),
            "--control",
            control,
        ]

    def start(self) -> None:
        options = ("--bundle", str(self.bundle), "--replicas", "2", "--state-store", self.store)
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(*options),
                cwd=ROOT,
                env=environment | {"PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while len(self.replicas()) < 2:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.2)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        self.process = None
        return status

    def replicas(self) -> dict[str, dict]:
        path = self.folder / "control" / "status.json"
        return json.loads(path.read_text())["replicas"] if path.is_file() else {}

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def ask(self, path: str, **body) -> tuple[int, dict]:
        content = json.dumps(body).encode() if body else None
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", content, {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")

    def items(self, **body) -> list[str]:
        status, answer = self.ask("/recommend", domain="books", **body)
        assert status == 200, answer
        return [item["item"] for item in answer["items"]]


@pytest.fixture(scope="module")
def job(bundle, request, tmp_path_factory):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store = "memory"
    if shutil.which("redis-server"):
        store = request.getfixturevalue("redis_server")
    job = ServeJob(bundle, tmp_path_factory.mktemp("job"), port, store)
    job.start()
    yield job
    if job.process is not None:
        job.stop()


@pytest.fixture(scope="module")
def annas(job, recommender) -> list[str]:
    """What anna was recommended when her events had been sent."""
    items = recommender.catalogue("books").ids(range(5))
    events = [{"user": "anna", "item": item} for item in items]
    status, answer = job.ask("/events", domain="books", events=events)
    assert (status, answer.get("applied")) == (200, 5)
    return recommender.recommend(items, 10, domain="books").item_ids


def test_every_replica_gives_the_recommenders_answers(job, recommender, annas):
    assert job.ask("/health")[1]["bundle"] == recommender.version
    assert len({replica["process"] for replica in job.replicas().values()}) == 2
    history = recommender.catalogue("books").ids([3, 7])
    expected = recommender.recommend(history, 10, domain="books").item_ids
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: job.items(history=history), range(24)))
        assert found == [expected] * 24
        assert set(map(tuple, pool.map(lambda _: job.items(user="anna"), range(24)))) == {
            tuple(annas)
        }


def test_a_new_item_is_known_to_both_replicas_once_it_is_answered(job):
    text = "A brass telescope for stars and planets"
    assert job.ask("/items", domain="garden", item="new", text=text)[1]["added"] is True
    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(job.ask, "/recommend", domain="garden", history=["new"]) for _ in range(24)
        ]
        assert [future.result()[0] for future in asked] == [200] * 24


def test_a_mistake_keeps_its_shape_through_serve(job):
    status, answer = job.ask("/recommend", domain="books", history=["no such item"])
    assert (status, answer["error"]["code"]) == (404, "unknown_item")


def test_bundles_change_under_load_without_a_lost_request(job, bundle, other_bundle, annas):
    answers, stopped = [], threading.Event()

    def ask():
        while not stopped.is_set():
            status, answer = job.ask("/recommend", domain="books", user="anna")
            answers.append((status, answer.get("bundle")))

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        try:
            for target in (other_bundle, bundle):
                done = subprocess.run(
                    job.command("swap", str(target)),
                    cwd=ROOT,
                    env=os.environ | {"PYTHONPATH": str(ROOT)},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, done.stderr
                version = Recommender.load(target).version
                assert f"bundle {version} answers on 2 replica(s)" in done.stdout
                assert job.ask("/health")[1]["bundle"] == version
        finally:
            stopped.set()
        for future in asking:
            future.result()
    versions = {Recommender.load(one).version for one in (bundle, other_bundle)}
    assert set(answers) == {(200, version) for version in versions}
    assert job.items(user="anna") == annas


def test_a_killed_replica_is_replaced_and_states_are_kept(job, annas):
    before = job.replicas()
    os.kill(next(iter(before.values()))["process"], signal.SIGKILL)
    deadline = time.monotonic() + START_SECONDS
    while len(job.replicas().keys() - before.keys()) < 1:
        assert time.monotonic() < deadline, job.log
        time.sleep(0.2)
    assert [job.items(user="anna") for _ in range(10)] == [annas] * 10


def test_a_restart_with_a_redis_keeps_states_and_items(job, annas):
    if job.store == "memory":
        pytest.skip("needs redis-server, which is not installed")
    assert job.stop() == 143
    assert job.replicas() == {}, "it has said that it left"
    assert job.log.rstrip().endswith("stopped")
    assert "Traceback" not in job.log
    job.start()
    assert job.items(user="anna") == annas
    assert job.ask("/recommend", domain="garden", history=["new"])[0] == 200


def serve(*arguments):
    return importlib.import_module("jobs.serve").main([*arguments])


def test_mistakes_are_told_in_a_sentence(bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HYDRAREC_HOME", str(tmp_path))
    damaged = tmp_path / "damaged"
    shutil.copytree(bundle, damaged)
    weights = next(damaged.rglob("weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, said in (
            (["swap", str(bundle)], "no server runs with"),
            (["--bundle", str(bundle), "--port", port], "cannot listen at"),
            (["--bundle", str(damaged), "--port", free_port()], "weights.safetensors"),
            (["--bundle", "absent", "--port", free_port()], "absent"),
            (
                ["--bundle", str(bundle), "--port", free_port(), "--state-store", "disk"],
                "expected memory or an address",
            ),
        ):
            assert serve(*arguments) == 2, arguments
            error = capsys.readouterr().err
            assert said in error
            assert error.startswith("error: ")
            assert error.count("\n") == 1
    assert not list(tmp_path.rglob("status.json"))


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


@pytest.mark.parametrize("arguments", [["--help"], ["swap", "--help"]])
def test_help_fits_a_terminal(arguments, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        serve(*arguments)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
