"""A small run, made once in this process: two domains, a tuned encoder, all kinds of Hydra."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline import Recommender
from pipeline.config import RunConfig
from pipeline.export import export
from pipeline.progress import Progress
from pipeline.run import execute
from pipeline.task_data import TaskData
from pipeline.user_model_task import TaskFolders, UserModelTask

SHOP = {"format": "simulated", "population": 700, "items": 60, "mean_history": 6}
TRAINING = {"epochs": 2, "negatives": 32}
RUN = {
    "name": "shop",
    "domains": [
        {"name": "books", "source": SHOP | {"catalogue": "books", "share": 0.8}},
        {"name": "garden", "source": SHOP | {"catalogue": "garden", "share": 0.9}},
    ],
    "models": ["popularity", "sasrec", "hydra_ids", "hydra_single", "hydra_joint"],
    "item_llm": {
        "encoder": {"base": "minilm", "max_tokens": 16},
        "lora": {"r": 4},
        "finetuning": {"max_steps": 2, "pairs_per_step": 8},
    },
    "user_model": {
        **{
            "dim": 16,
            "items": {"text_channel": True, "neighbours": True, "domain_embedding": True},
        },
        **{"history_mean": True, "training": TRAINING},
    },
    "sasrec": {"dim": 16, "training": TRAINING},
    "compute": {"in_process": True, "workers": 1},
}


@dataclass(frozen=True)
class SmallRun:
    """A finished run."""

    folder: Path
    config: RunConfig


def finished_run(folder: Path, **changed: object) -> SmallRun:
    """Run RUN with some of its fields changed."""
    content = RUN | {"store": str(folder / ".store")} | changed
    config = RunConfig.model_validate(content)
    execute(config, folder / "run", Progress())
    return SmallRun(folder / "run", config)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    return finished_run(tmp_path_factory.mktemp("recommender"))


@pytest.fixture(scope="session")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """A run whose items are their texts alone, by an untuned table, and histories are whole."""
    return finished_run(
        tmp_path_factory.mktemp("texts"),
        models=["hydra_joint"],
        item_llm={"encoder": {"base": "static"}, "lora": None},
        split={"max_history": None},
        user_model={"dim": 16, "layers": 1, "items": {"ids": False}, "training": TRAINING},
    )


@pytest.fixture(scope="session")
def large_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one domain with items enough for an index."""
    shop = SHOP | {"catalogue": "books", "share": 1.0, "items": 600, "population": 100}
    large = finished_run(
        tmp_path_factory.mktemp("large"),
        domains=[{"name": "books", "source": shop}],
        models=["hydra_joint"],
        item_llm={"encoder": {"base": "static"}, "lora": None},
        user_model={"dim": 16, "layers": 1, "training": TRAINING},
    )
    return export(large.folder)


@pytest.fixture(scope="session")
def bundle(run: SmallRun) -> Path:
    """The bundle of its hydra_joint; a test that writes to one copies it first."""
    return export(run.folder)


@pytest.fixture(scope="session")
def shared(bundle: Path) -> Recommender:
    """The bundle in use; a test that adds items loads one of its own."""
    return Recommender.load(bundle)


@pytest.fixture(scope="session")
def data_of():
    """data_of(run, model, domain=None): what the model's evaluation sees."""

    def build(run: SmallRun, model: str, domain: str | None = None) -> TaskData:
        from pipeline.run_outputs import RunOutputs

        outputs = RunOutputs.read(run.folder)
        texts = None if model == "hydra_ids" else outputs.output("vectors")
        folders = TaskFolders(corpus=outputs.output("corpus") / "corpus", vectors=texts)
        return TaskData(UserModelTask.of(model, domain, run.config), folders)

    return build
