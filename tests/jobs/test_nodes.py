"""Past one machine: nodes that share nothing but an object store get the figures of one node.

A head without slots and worker nodes with addresses and mirror folders of their own. Four workers
are more than one node has slots for, so a group always spans two nodes.
"""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from pipeline.tracking.jsonl import TRACKING
from pipeline.workers.local_ray import LocalRay
from tests.jobs.conftest import ROOT, TINY
from tests.jobs.nodes import Node, statuses

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1500)]

SLOTS = 3  # of a node
SECRET = "very-secret"
EPOCHS = 12
ENCODER = {"base": "minilm", "max_tokens": 16}
SHORT = TINY | {
    "name": "nodes",
    "models": ["popularity", "hydra_joint"],
    "compute": {"workers": 4},
    "item_llm": {"encoder": ENCODER, "lora": None},
    "user_model": {
        "dim": 16,
        "training": {"epochs": EPOCHS, "patience": EPOCHS, "negatives": 32},
    },
}
TUNED = SHORT | {
    "item_llm": {
        "encoder": ENCODER,
        "lora": {"r": 4},
        "finetuning": {
            **{"max_steps": 4, "pairs_per_step": 24, "zero_stage": 2},
            "checkpoint_every": 2,
        },
    },
}


@dataclass
class Cluster:
    """A head, its nodes, and the store that is all they share."""

    folder: Path
    ray: LocalRay
    store: str
    nodes: list[Node] = field(default_factory=list)

    def add(self):
        self.nodes.append(Node(self.ray, len(self.nodes) + 1, self.folder, SLOTS, {}))

    def run(self, name, *options, store=None, config=SHORT):
        """Submit the job; its output, and the folder of its results."""
        file, results = self.folder / f"{name}.yaml", self.folder / "results" / name
        file.write_text(yaml.safe_dump(config | {"store": store or f"{self.store}/{name}"}))
        command = ["python", "jobs/multidomain.py", "--config", str(file)]
        done = self.ray.submit(
            [*command, "--run-dir", str(results), *options], working_dir=ROOT, capture=True
        )
        assert done.returncode == 0, done.stdout
        assert SECRET not in done.stdout
        return done.stdout, results


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, shared_bucket, s3_environment):
    folder = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as environment:
        for name, value in s3_environment.items():
            environment.setenv(name, value)
        environment.setenv("HYDRAREC_CACHE", str(folder / "head"))
        with LocalRay(cpus=0) as ray:
            made = Cluster(folder, ray, f"{shared_bucket}/runs")
            try:
                made.add()
                made.add()
                yield made
            finally:
                for node in made.nodes:
                    node.stop()


def wait_for(results, stage, epoch, job):
    """Until the run has logged an epoch of a stage."""
    path = results / TRACKING
    while not job.done():
        lines = path.read_text().rpartition("\n")[0].splitlines() if path.is_file() else []
        logged = [record for record in map(json.loads, lines) if record["event"] == "log"]
        if any(r["stage"] == stage and (r.get("epoch") or 0) >= epoch for r in logged):
            return
        time.sleep(0.1)
    pytest.fail(job.result()[0])


def losses(results):
    curves = json.loads((results / "curves.json").read_text())
    (curve,) = curves["user_models"]["hydra_joint"].values()
    return [point["loss"] for point in curve]


def run_with_a_death(cluster, name, config):
    """The job on two nodes, of which one dies while both train; another one joins."""
    with ThreadPoolExecutor() as pool:
        job = pool.submit(cluster.run, name, config=config)
        wait_for(cluster.folder / "results" / name, "train.hydra_joint", 3, job)
        cluster.nodes[-1].kill()
        cluster.add()  # a new machine, with nothing of the one before
        return job.result()


def run_on_one_node(workplace, name, config):
    """The job on one node, with a folder as its store."""
    place = Cluster(workplace.folder / name, workplace.ray, "")
    place.folder.mkdir()
    return place.run(name, config=config, store=str(place.folder / "store"))[1]


def held(mirror):
    """The outputs that a machine has fetched or made."""
    return {path.parent.name.split("-")[0] for path in mirror.glob("stores/*/*/manifest.json")}


def expect_equal_results(results, expected):
    assert losses(results) == losses(expected)
    assert len(losses(results)) == EPOCHS
    assert (results / "metrics.json").read_bytes() == (expected / "metrics.json").read_bytes()


@pytest.mark.faults
def test_four_workers_on_nodes_that_share_no_folder_learn_what_one_learns_though_a_node_dies(
    cluster, workplace
):
    output, results = run_with_a_death(cluster, "short", SHORT)
    assert set(statuses(output).values()) == {"ran"}
    for node in cluster.nodes:  # the new one too has fetched what its own workers read
        assert {"corpus", "vectors"} <= held(node.mirror)
        assert not held(node.mirror) & {"rank.popularity", "metrics"}, "of the driver's machine"
    assert "metrics" in held(cluster.folder / "head")
    expect_equal_results(results, run_on_one_node(workplace, "four", SHORT))
    alone = run_on_one_node(workplace, "alone", SHORT | {"compute": {"workers": 1}})
    assert losses(results) == pytest.approx(losses(alone), abs=1e-3)


def test_four_workers_again_have_nothing_to_do_for_a_driver_with_nothing_of_the_first(cluster):
    shutil.rmtree(cluster.folder / "head")
    planned, _ = cluster.run("short", "--plan")
    assert f"store    {cluster.store}/short" in planned
    assert "0 resumed, 0 made. Nothing was run." in planned
    assert not held(cluster.folder / "head")
    output, _ = cluster.run("short")
    assert set(statuses(output).values()) == {"reused"}


@pytest.mark.slow
@pytest.mark.faults
def test_the_item_llm_is_tuned_alike_on_nodes_that_share_no_folder(cluster, workplace):
    output, results = run_with_a_death(cluster, "tuned", TUNED)
    assert set(statuses(output).values()) == {"ran"}
    expect_equal_results(results, run_on_one_node(workplace, "tuned", TUNED))
    tuned = json.loads((results / "curves.json").read_text())["item_llm"]
    assert tuned["workers"] == 4
