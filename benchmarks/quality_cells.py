"""One rival's curve: a JSON file that grows by an epoch at a time, and the checkpoint behind it.

OUT/NAME.json              settings, parameters, and for each epoch the seconds until its end
OUT/checkpoints/NAME/      what the next epoch goes on from
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality_data import RaceData
from benchmarks.quality_rivals import TEXT_KIND, Rival
from pipeline.run_card import hardware, versions
from pipeline.whole_files import content_hash, read_json, write_json
from user_model import EpochRecord, TrainingConfig, TrainingResult, train
from user_model.config_keys import key_fields

_WARM_UP_HISTORIES = 400


class Cell:
    """A rival in the race.

    Attributes:
        rival: who.
        record: what its file holds; `record["state"]` is "training" until it has ended.
    """

    def __init__(self, rival: Rival, data: RaceData, out: Path, seed: int) -> None:
        """Take the curve up where its file leaves off, or begin one.

        Raises:
            ValueError: the file is of other settings, data or threads, or its checkpoint is gone.
        """
        self.rival, self._seed = rival, seed
        self._data = data.of(rival)
        self._model = self._data.build()
        self._file = out / f"{rival.file_name}.json"
        self._checkpoints = out / "checkpoints" / rival.file_name
        self.record = self._opened(self._fresh(data))

    @property
    def epochs(self) -> int:
        """Epochs done."""
        return len(self.record["curve"])

    @property
    def ended(self) -> bool:
        """Whether the schedule is at its end, or patience was."""
        return bool(self.record["state"] != "training")

    def warm_up(self) -> None:
        """Train a model that is thrown away for a few steps, so that compiling is not timed."""
        few = self._data.first_histories(_WARM_UP_HISTORIES)
        config = self.training.model_copy(update={"epochs": 1, "min_epoch_steps": 2})
        model = self._data.build()
        train(model, few, self._data.domain_starts, config, seed=self._seed)

    def advance(self) -> dict[str, Any]:
        """Train one epoch more; return its point of the curve. The file is written at once."""
        result = train(
            self._model,
            self._data.histories,
            self._data.domain_starts,
            self.training,
            seed=self._seed,
            validate=self._data.validation,
            checkpoint_dir=self._checkpoints,
            until_epoch=self.epochs + 1,
        )
        # More than one point where the process was killed between checkpoint and file.
        self.record["curve"] = _curve(result.history)
        self.record["state"] = self._state(result)
        if result.best_validation is not None:
            self.record["best"] = {
                "epoch": result.best_epoch,
                "ndcg@10": result.best_validation,
                "test_ndcg@10": None,
            }
        write_json(self._file, self.record)
        last: dict[str, Any] = self.record["curve"][-1]
        return last

    def test(self) -> None:
        """Add the test figure of the epoch that is best so far, where it is not there yet."""
        best = self.record["best"]
        known = best is None or best["test_ndcg@10"] is not None
        if known or not self._checkpoints.is_dir():
            return
        # Trains nothing: it brings the best weights back.
        train(
            self._model, self._data.histories, self._data.domain_starts, self.training,
            seed=self._seed, checkpoint_dir=self._checkpoints, until_epoch=self.epochs,
        )  # fmt: skip
        best["test_ndcg@10"] = self._data.test(self._model)
        write_json(self._file, self.record)

    @property
    def training(self) -> TrainingConfig:
        """The rival's training settings."""
        return self.rival.architecture.training

    def _fresh(self, data: RaceData) -> dict[str, Any]:
        config = key_fields(self.rival.architecture)
        decides = {"model": self.rival.model, "config": config, "seed": self._seed}
        texts = data.texts if self.rival.kind == TEXT_KIND else None
        read = {} if texts is None else {"texts": texts.fingerprint}
        return {
            "name": self.rival.name,
            "kind": self.rival.kind,
            **decides,
            "threads": torch.get_num_threads(),
            "data": data.facts(),
            "config_hash": content_hash({**decides, **read, "data": data.facts()}),
            "texts": None if texts is None else texts.cost,
            "parameters": asdict(self._model.parameter_counts()),
            "versions": versions(),
            "hardware": hardware(),
            "state": "training",
            "best": None,
            "curve": [],
        }

    def _opened(self, fresh: dict[str, Any]) -> dict[str, Any]:
        if not self._file.exists():
            return fresh
        found: dict[str, Any] = read_json(self._file)
        for field in ("config_hash", "threads"):
            if found.get(field) != fresh[field]:
                raise ValueError(
                    f"{self._file}: got {field} {found.get(field)}, expected {fresh[field]}: it is "
                    "of other settings; give another --out, or remove it to begin anew"
                )
        if found["state"] == "training" and not self._checkpoints.is_dir():
            raise ValueError(
                f"{self._file}: it stops after {len(found['curve'])} epochs, and what it would go "
                f"on from, {self._checkpoints}, is absent; remove the file to begin anew"
            )
        return found

    def _state(self, result: TrainingResult) -> str:
        if result.stopped_early:
            return "stopped by patience"
        return "schedule ended" if result.epochs == self.training.epochs else "training"


def _curve(history: Sequence[EpochRecord]) -> list[dict[str, Any]]:
    """The epochs, with the seconds of training, without validation, until the end of each."""
    seconds = accumulate(record.seconds for record in history)
    cpu_seconds = accumulate(record.cpu_seconds or 0.0 for record in history)
    return [
        {
            "epoch": record.epoch,
            "step": record.step,
            "loss": record.loss,
            "ndcg@10": record.validation,
            "seconds": round(until, 4),
            "cpu_seconds": round(cpu, 4),
        }
        for record, until, cpu in zip(history, seconds, cpu_seconds, strict=True)
    ]
