"""Turn a finished run into a bundle: a folder from which its model recommends.

    python -m pipeline.export runs/demo --output bundles/demo

The bundle holds a model's weights, the vectors, ids and texts of all items, the
text encoder's adapter, the run's metrics and its card. Use it with
`Recommender.load("bundles/demo")`, or recommend to everybody of a domain:

    python jobs/recommend.py --bundle bundles/demo --help

It is written aside and put in place at the end, whole or not at all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from item_llm.folders import MANIFEST, publish, staged, write_manifest
from pipeline.command_line import finished, job_parser
from pipeline.paths import project_root, resolve, resolve_place
from pipeline.whole_files import write_json

if TYPE_CHECKING:
    from pipeline.progress import StageProgress
    from pipeline.recommender.bundle import BundledEncoder
    from pipeline.recommender.writing import TrainedModel
    from pipeline.run_outputs import RunOutputs
    from pipeline.user_model_task import UserModelTask

_DEFAULT_MODEL = "hydra_joint"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, as `finished` does."""
    options = _parser().parse_args(arguments)
    return finished(lambda: _run(options))


def export(
    run_folder: Path | str,
    model: str = _DEFAULT_MODEL,
    output: Path | str | None = None,
    *,
    progress: StageProgress | None = None,
    replace: bool = False,
) -> str | Path:
    """Write the bundle of one of a run's models.

    Args:
        run_folder: of a finished run; a relative one is the project's.
        model: whose bundle; a Hydra.
        output: the folder to be, or s3://BUCKET/PREFIX; None: `bundle.MODEL` in the run's folder.
        progress: told of the rows that are written.
        replace: let an older bundle make way.

    Returns:
        Where the bundle is.

    Raises:
        ValueError: no finished run, a model that it has not or that cannot be followed event by
            event, an output that is no longer in the run store, or a bundle that is there already.
        StorageError: an object store cannot be used.
    """
    from pipeline.run_outputs import RunOutputs
    from pipeline.storage.bucket import is_remote
    from pipeline.storage.mirror import mirror_of

    folder = mirror_of(str(run_folder)) if is_remote(run_folder) else Path(run_folder)
    run = RunOutputs.read(resolve(folder, project_root()))
    target = resolve_place(str(output or run.folder / f"bundle.{model}"), project_root())
    publishing = _Address(target, replace) if is_remote(target) else _Folder(Path(target), replace)
    publishing.check()
    tasks = _tasks(run, model)
    with staged(publishing.beside) as staging:
        _write(staging, run, tasks, progress)
        publishing.publish(staging)
    return target


def _run(options: argparse.Namespace) -> None:
    from pipeline.progress import Progress
    from pipeline.recommender.bundle import Bundle

    progress = Progress()
    progress.expect(["export"])
    with progress.running(), progress.stage("export") as stage:
        place = export(
            options.run, options.model, options.output, progress=stage, replace=options.replace
        )
    bundle = Bundle.open(place)
    size = sum(path.stat().st_size for path in bundle.folder.rglob("*") if path.is_file())
    for name, domain in bundle.config.domains.items():
        print(f"{name:20} {domain.n_items:>10,} items")
    print(f"bundle {bundle.version}, {size / 1e6:,.1f} MB: {place}", flush=True)


class _Folder:
    """A bundle is put into a folder of this machine by one rename."""

    def __init__(self, target: Path, replace: bool) -> None:
        self.beside, self._target, self._replace = target, target, replace

    def check(self) -> None:
        """See that nothing is lost; raises ValueError."""
        target = self._target
        if not target.exists():
            return
        if not self._replace:
            raise ValueError(f"output: {target} exists; give another folder, or --replace")
        if not (target / MANIFEST).is_file():
            raise ValueError(
                f"output: {target} exists and is no bundle, so it is not replaced; give another "
                "folder"
            )

    def publish(self, staging: Path) -> None:
        """Put it there, once it is whole."""
        publish(staging, self._target, replace=self._replace)


class _Address:
    """A bundle is written on this machine and uploaded, its manifest last."""

    def __init__(self, target: str | Path, replace: bool) -> None:
        from pipeline.storage.mirror import mirror_of

        self._address, self._replace = str(target), replace
        self.beside = mirror_of(self._address)

    def check(self) -> None:
        """See that nothing is lost; raises ValueError."""
        from pipeline.storage.shared_folder import check_free

        if not self._replace:
            check_free(self._address)

    def publish(self, staging: Path) -> None:
        """Upload it, once it is whole."""
        from pipeline.recommender.bundle import KIND
        from pipeline.storage.shared_folder import put_folder

        put_folder(staging, self._address, KIND, replace=self._replace)


def _tasks(run: RunOutputs, model: str) -> list[tuple[str, UserModelTask]]:
    """The stage of each trained model, and its task with the settings that were chosen."""
    from pipeline.choice import as_chosen
    from pipeline.config import HydraModelConfig
    from pipeline.user_model_task import UserModelTask

    trained = run.trained()
    _check_model(model, trained)
    tasks = []
    for domain, stage in trained[model].items():
        task = UserModelTask.of(model, domain, run.config)  # type: ignore[arg-type]
        task = as_chosen(task, run.output(stage))
        assert isinstance(task.architecture, HydraModelConfig)
        if task.interleaved:
            raise ValueError(
                f"{model} was trained with user_model.interleave: true, on histories of several "
                "domains, and a bundle follows a user in one; train it with interleave: false"
            )
        tasks.append((stage, task))
    return tasks


def _check_model(model: str, trained: dict[str, dict[str | None, str]]) -> None:
    from pipeline.config_mistakes import did_you_mean

    able = sorted(
        (name for name in trained if name.startswith("hydra_")),
        key=lambda name: (name != _DEFAULT_MODEL, name),
    )
    advice = f"give --model {able[0]}" if able else "run again with models: [hydra_joint]"
    if model not in trained:
        hint = did_you_mean(model, able) if able else "none that can be exported"
        raise ValueError(f"the run has no trained model {model!r}: {hint}; {advice}")
    if model not in able:
        raise ValueError(
            f"{model} reads its whole window again at each event and has no state to go on from, "
            f"so it is not exported; {advice}"
        )


def _write(
    staging: Path,
    run: RunOutputs,
    tasks: Sequence[tuple[str, UserModelTask]],
    progress: StageProgress | None,
) -> None:
    """All files of the bundle; its manifest is the last."""
    from pipeline.recommender.bundle import BUNDLE, FORMAT, KIND, BundleConfig
    from pipeline.recommender.writing import write_domain, write_model
    from pipeline.report_files import METRICS, RUN

    def tell(done: float, total: float, domain: str) -> None:
        if progress is not None:
            progress.update(done, total, "items", domain)

    scopes, domains, state = {}, {}, {}
    for stage, task in tasks:
        trained = _trained(run, stage, task)
        scopes[trained.scope] = write_model(staging, trained)
        state[trained.scope] = _state_schema(trained)
        for domain in trained.data.domains:
            domains[domain.name] = write_domain(staging, trained, domain, tell)
    first = tasks[0][1]
    config = BundleConfig(
        model=first.model,
        run=run.config.name,
        window=first.split.max_history,
        scopes=scopes,
        domains={one.name: domains[one.name] for one in run.config.domains if one.name in domains},
        encoder=_encoder(staging, run, first.model),
        state=state,
    )
    write_json(staging / BUNDLE, config.model_dump(mode="json"))
    write_json(staging / METRICS, run.files.metrics)
    write_json(staging / RUN, run.files.run)
    write_manifest(staging, KIND, {"format": FORMAT})


def _trained(run: RunOutputs, stage: str, task: UserModelTask) -> TrainedModel:
    """A model with its trained weights, built as evaluation builds it."""
    from pipeline.prepare import CORPUS
    from pipeline.recipe import encoder_of
    from pipeline.recommender.writing import TrainedModel
    from pipeline.task_data import TaskData
    from pipeline.user_model_task import TaskFolders
    from pipeline.user_models import WEIGHTS
    from user_model.checkpoint import load_weights

    encoder = encoder_of(task.model)
    vectors = None if encoder is None else _VECTORS[encoder]
    folders = TaskFolders(
        corpus=run.output("corpus") / CORPUS,
        vectors=None if vectors is None else run.output(vectors),
    )
    data = TaskData(task, folders)
    model = data.build()
    load_weights(run.output(stage) / WEIGHTS, model)
    return TrainedModel(model.eval().requires_grad_(False), data, data.item_texts())


_VECTORS = {"tuned": "vectors", "frozen": "vectors_frozen"}


def _state_schema(trained: TrainedModel) -> dict[str, tuple[str, list[int]]]:
    """Type and shape of each tensor of one user's state."""
    tensors = trained.hydra.init_state(1).to_dict()
    channel = trained.model.items.channel
    found = {
        name: (str(tensor.dtype).removeprefix("torch."), list(tensor.shape[1:]))
        for name, tensor in tensors.items()
    }
    found["texts"] = ("float32", [0 if channel is None else channel.width])
    found["last"] = ("float32", [trained.hydra.config.dim])
    return found


def _encoder(staging: Path, run: RunOutputs, model: str) -> BundledEncoder | None:
    """The reference to the text encoder; its adapter is copied."""
    from pipeline.item_vectors import pinned_adapter
    from pipeline.recipe import encoder_of
    from pipeline.recommender.bundle import BundledEncoder
    from pipeline.recommender.writing import write_adapter
    from pipeline.snapshots import read_encoder
    from pipeline.workers.item_llm import ADAPTER

    kind = encoder_of(model)
    if kind is None:
        return None
    noted = read_encoder(run.output(_VECTORS[kind]))
    adapter = None
    if kind == "tuned" and "item_llm" in run.stages:
        adapter = run.output("item_llm") / ADAPTER
    elif kind == "tuned":
        adapter = pinned_adapter(run.config.item_llm)
    if adapter is not None:
        write_adapter(staging, adapter)
    return BundledEncoder(
        config=run.config.item_llm.encoder,
        adapted=adapter is not None,
        fingerprint=noted["fingerprint"],
        dim=noted["dim"],
    )


def _parser() -> argparse.ArgumentParser:
    parser = job_parser("python -m pipeline.export", __doc__)
    parser.add_argument(
        "run", metavar="RUN", help="the folder of a finished run; relative to the project"
    )
    parser.add_argument(
        "--model",
        default=_DEFAULT_MODEL,
        metavar="NAME",
        help=f"a Hydra of the run (default: {_DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--output",
        metavar="BUNDLE",
        help="the bundle's folder, relative to the project, or an s3:// address (default: "
        "RUN/bundle.NAME)",
    )
    parser.add_argument(
        "--replace", action="store_true", help="let a bundle that is there make way"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
