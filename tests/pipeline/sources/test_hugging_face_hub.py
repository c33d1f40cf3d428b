"""Format `huggingface` from the hub: the real client, against a small hub on this machine.

It answers what the client asks on its way to a streamed dataset: the repository's description, its
tree, and files with byte ranges. A dataset is a folder OWNER/NAME.
"""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

datasets = pytest.importorskip(
    "datasets", reason="needs datasets: pip install 'hydrarec[datasets]'"
)
datasets.disable_progress_bars()

ROOT = Path(__file__).resolve().parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
EVENTS = {"user_id": ["u", "v"], "item_id": [1, 2], "timestamp": [5, 6]}
READ = """
import json, sys
from pathlib import Path
from pipeline.sources.registry import FORMATS, read_source
for given in json.loads(sys.argv[1]):
    config = FORMATS["huggingface"].config.model_validate({"interactions": given})
    try:
        print(read_source(config, Path()).whole().interactions.rows())
    except ValueError as error:
        print("ValueError:", error)
"""


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, folder, *arguments):
        self.folder = folder
        super().__init__(*arguments)

    def do_GET(self):
        path = self.path.split("?")[0]
        file = re.fullmatch(rf"/datasets/(\w+/\w+)/resolve/{COMMIT}/(.+)", path)
        tree = re.fullmatch(rf"/api/datasets/(\w+/\w+)/tree/{COMMIT}/?(.*)", path)
        about = re.fullmatch(rf"/api/datasets/(\w+/\w+)/revision/{COMMIT}", path)
        name = next((found[1] for found in (file, tree, about) if found), "")
        if not name or not (self.folder / name).is_dir():
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif file:
            self.send_file(self.folder / name / file[2])
        elif tree:
            self.send_tree(self.folder / name, self.folder / name / tree[2])
        else:
            self.answer(200, json.dumps({"id": name, "sha": COMMIT, "siblings": []}).encode())

    do_HEAD = do_GET  # noqa: N815

    def send_file(self, file):
        if not file.is_file():
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        data = file.read_bytes()
        headers = {"ETag": f'"{"b" * 40}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            self.answer(206, data[first : last + 1], headers)
        else:
            self.answer(200, data, headers)

    def send_tree(self, root, folder):
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        kinds = [
            {"type": "file", "size": path.stat().st_size} if path.is_file()
            else {"type": "directory", "size": 0} for path in found
        ]  # fmt: skip
        rows = [
            {"path": str(path.relative_to(root)), "oid": "a" * 40} | kind
            for path, kind in zip(found, kinds, strict=True)
        ]
        self.answer(200, json.dumps(rows).encode(), {"Content-Type": "application/json"})

    def answer(self, status, body, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def repository(tmp_path):
    """The folder of the dataset owner/tiny on the hub."""
    folder = tmp_path / "hub" / "owner" / "tiny"
    (folder / "data").mkdir(parents=True)
    return folder


@pytest.fixture
def told(tmp_path, repository):
    """told({...}, ...): what a process of its own prints, a line each, that reads from the hub."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, tmp_path / "hub"))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def read(*tables):
        given = [{"hub": "owner/tiny", "revision": COMMIT} | table for table in tables]
        proxies = {name for name in os.environ if name.lower().endswith("_proxy")}
        environment = {k: v for k, v in os.environ.items() if k not in proxies} | {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
            "PYTHONPATH": str(ROOT),
        }
        return subprocess.run(
            [sys.executable, "-c", READ, json.dumps(given)],
            cwd=tmp_path, env=environment, check=True, capture_output=True, text=True,
        ).stdout.splitlines()  # fmt: skip

    yield read
    server.shutdown()
    server.server_close()


def save(folder, name, rows=EVENTS):
    datasets.Dataset.from_dict(rows).to_parquet(folder / "data" / name)


def test_all_splits_are_streamed_or_the_one_that_is_named(repository, told):
    save(repository, "train-00000-of-00001.parquet")
    last = {"user_id": ["u"], "item_id": [3], "timestamp": [7]}
    save(repository, "test-00000-of-00001.parquet", last)
    every, one, no_split, no_subset, unknown = told(
        {}, {"split": "test"}, {"split": "dev"}, {"subset": "other"}, {"hub": "owner/other"}
    )
    assert every == "[('u', '1', 5), ('v', '2', 6), ('u', '3', 7)]"
    assert one == "[('u', '3', 7)]"
    assert no_split == "ValueError: owner/tiny has no split 'dev': it has train, test"
    assert "(BuilderConfig 'other' not found. Available: ['default'])" in no_subset
    assert unknown.startswith("ValueError: the dataset owner/other cannot be read from the Hugging")


def test_a_loading_script_is_refused_and_does_not_run(repository, told):
    (repository / "tiny.py").write_text("print('it ran')\n")
    save(repository, "train-00000-of-00001.parquet")
    (answer,) = told({})
    assert "Dataset scripts are no longer supported" in answer


def test_files_without_types_are_refused(repository, told):
    (repository / "data" / "train.csv").write_text("user_id,item_id,timestamp\n007,1,5\n")
    (answer,) = told({})
    assert "are csv, expected Parquet or Arrow" in answer


def test_a_repository_that_points_elsewhere_is_refused(repository, told):
    elsewhere = repository.parent / "elsewhere"
    (elsewhere / "data").mkdir(parents=True)
    save(elsewhere, "train.parquet")
    address = f"hf://datasets/owner/elsewhere@{COMMIT}/data/train.parquet"
    (repository / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files: {address}\n---\n"
    )
    (answer,) = told({})
    assert (
        "cannot be read from the Hugging Face hub (Data files don't belong to owner/tiny" in answer
    )
