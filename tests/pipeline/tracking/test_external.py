"""The real trackers: what they leave on the disk, read back."""

import importlib.util
import sys
from pathlib import Path

import pytest

from pipeline.tracking.config import TrackingConfig
from pipeline.tracking.records import Figures, TrackedRun
from pipeline.tracking.registry import wanted
from pipeline.tracking.tracking import Tracking

pytestmark = pytest.mark.timeout(240)


def followed(folder: Path, **settings) -> TrackedRun:
    """A short run that the wanted trackers followed, without a word of complaint."""
    said: list[str] = []
    config = TrackingConfig(finish_seconds=120, **settings)
    run = TrackedRun("shop", folder, {"config.seed": "7", "long": "x" * 2000})
    with Tracking(config, wanted(config), said.append).following(run) as tracking:
        for step in (1, 2):
            values = {"loss": 1 / step, "ndcg@10": 0.1, "by_domain/books/ndcg@10": 0.2}
            tracking.log("train.hydra_joint", Figures(values, step, step))
        tracking.log("metrics", Figures({"books/hydra_joint/ndcg@10": 0.25}))
        tracking.describe({"adapter.sha256": "abc"})
    assert said == []
    return run


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}: pip install 'hydrarec[{package}]'")


def test_tensorboards_files_hold_every_scalar(tmp_path):
    followed(tmp_path, tensorboard=True)
    from tensorboardX.proto.event_pb2 import Event

    (file,) = (tmp_path / "tensorboard").glob("events.*")
    scalars, texts = [], []
    content = file.read_bytes()
    while content:  # TFRecord: length (8 bytes), its CRC (4), the event, its CRC (4)
        length = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                scalars.append((value.tag, event.step, round(value.simple_value, 4)))
            else:
                texts.append(value.tensor.string_val[0].decode())
    assert ("train.hydra_joint/loss", 2, 0.5) in scalars
    assert ("train.hydra_joint/by_domain/books/ndcg_at_10", 1, 0.2) in scalars
    assert ("metrics/books/hydra_joint/ndcg_at_10", 0, 0.25) in scalars
    assert len(scalars) == 7
    assert any("| config.seed | 7 |" in text for text in texts)
    assert any("| adapter.sha256 | abc |" in text for text in texts)


def test_mlflows_store_holds_metrics_and_parameters(tmp_path, monkeypatch):
    needs("mlflow")
    followed(tmp_path, mlflow=True, mlflow_experiment="shops")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    client = MlflowClient((tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("shops")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("shop", "FINISHED")
    history = client.get_metric_history(run.info.run_id, "train.hydra_joint/loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.5)]
    assert run.data.metrics["metrics/books/hydra_joint/ndcg_at_10"] == 0.25
    assert run.data.params["config.seed"] == "7"
    assert run.data.params["adapter.sha256"] == "abc"


def test_wandb_offline_leaves_a_run_to_sync(tmp_path):
    needs("wandb")
    followed(tmp_path, wandb=True)
    (file,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert b"train.hydra_joint/loss" in content
    assert b"metrics/books/hydra_joint/ndcg_at_10" in content


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_an_error_before_the_run(name, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [])
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ValueError, match=rf"pip install 'hydrarec\[{name}\]'"):
        wanted(TrackingConfig(**{name: True}))
