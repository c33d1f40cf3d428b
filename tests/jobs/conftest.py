"""A whole small run, made once for all tests of the jobs: submitted to a real Ray of its own."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from pipeline.workers.local_ray import LocalRay

ROOT = Path(__file__).resolve().parents[2]
SHOP = {"format": "simulated", "population": 400, "items": 60, "mean_history": 6}
TINY = {
    "name": "tiny",
    "domains": [
        {"name": "books", "source": SHOP | {"catalogue": "books", "share": 0.8}},
        {"name": "garden", "source": SHOP | {"catalogue": "garden", "share": 0.4}},
    ],
    "models": ["popularity", "sasrec", "hydra_single", "hydra_joint"],
    "item_llm": {
        "encoder": {"base": "minilm", "max_tokens": 16},
        "lora": {"r": 4},
        "finetuning": {
            **{"max_steps": 8, "pairs_per_step": 16, "zero_stage": 2},
            "checkpoint_every": 2,
        },
    },
    "user_model": {
        **{"dim": 16, "items": {"text_channel": True, "choose_text_weight": True}},
        "training": {"epochs": 2, "negatives": 32},
    },
    "sasrec": {"dim": 16, "training": {"epochs": 2, "negatives": 32}},
}
# What people have in the environment of their jobs, and nothing may ever repeat.
SECRETS = {
    name: f"planted-{name.lower()}-4f1c9e"
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD")
}


@dataclass(frozen=True)
class Job:
    """One submitted job: what it printed, its status, how long it took, its metrics.json."""

    output: str
    status: int
    seconds: float
    metrics: bytes


@dataclass(frozen=True)
class Workplace:
    """A folder with a config and a store, and the Ray that jobs are submitted to."""

    folder: Path
    ray: LocalRay

    @property
    def config(self) -> Path:
        return self.folder / "tiny.yaml"

    @property
    def secrets(self) -> list[str]:
        """What stands in the environment of every job, and the token of this Ray."""
        token = Path(self.ray.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        return [*SECRETS.values(), token]

    @property
    def run_dir(self) -> Path:
        return self.folder / "runs" / "tiny"

    def submit(self, *entrypoint: str) -> Job:
        started = time.monotonic()
        done = self.ray.submit(
            [*entrypoint, "--config", str(self.config), "--run-dir", str(self.run_dir)],
            working_dir=ROOT,
            capture=True,
        )
        metrics = self.run_dir / "metrics.json"
        found = metrics.read_bytes() if metrics.is_file() else b""
        return Job(done.stdout, done.returncode, time.monotonic() - started, found)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    folder = tmp_path_factory.mktemp("jobs")
    content = TINY | {"store": str(folder / "store")}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content))
    with pytest.MonkeyPatch.context() as planted:
        for name, secret in SECRETS.items():
            planted.setenv(name, secret)
        with LocalRay() as ray:
            yield Workplace(folder, ray)


@pytest.fixture(scope="session")
def first_run(workplace: Workplace) -> Job:
    """`ray job submit -- python jobs/multidomain.py`, from nothing to the report."""
    job = workplace.submit("python", "jobs/multidomain.py")
    assert job.status == 0, job.output
    return job
