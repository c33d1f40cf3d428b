"""Training and ranking of one user model: what runs on the workers, with no word of Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.examples import save_examples
from pipeline.histories import TrainingHistories, training_histories
from pipeline.leaks import check_no_leak
from pipeline.ranks_file import save_ranks
from pipeline.task_data import TaskData
from pipeline.text_weights import choose_text_multiples, multiply_texts
from pipeline.tracking.records import Figures
from pipeline.validation import Validation
from pipeline.whole_files import write_json
from user_model import EpochRecord, Recommender, TrainingResult, Workers, train
from user_model.checkpoint import load_weights, save_weights

WEIGHTS = "weights"
CURVE = "curve.json"
TEXT_MULTIPLES = "text_multiples"  # among the facts of a model whose weights of texts were chosen

# done, total, unit, remark, and the epoch's figures for the trackers
Report = Callable[[float, float, str, str, Figures], None]


def train_user_model(
    data: TaskData,
    workers: Workers,
    output: Path,
    scratch: Path,
    report: Report,
    *,
    on_checkpoint: Callable[[], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Train one model and write its best weights and its curve to `output` (rank 0).

    Checkpoints go to `scratch`; a second call with the same scratch resumes from the last one.
    `on_checkpoint` is called after each (rank 0). `should_stop` is asked now and then.
    Under the split `refit` the validation events are targets too, so nothing is validated and the
    last weights count: the number of epochs has been chosen on the strict split before.

    Returns:
        Facts for the run card: parameters, epochs and, if there was one, the validation figure.
    """
    validation = Validation(data, workers) if data.task.split.kind != "refit" else None
    watched = report, on_checkpoint, should_stop
    model, result = _fit(data, workers, scratch / "fit", watched, validation)
    if multiples := _text_multiples(model, data, validation, workers, report):
        multiply_texts(model, data, multiples)
    if workers.rank == 0:
        origin = {"model": data.task.model, "domain": data.task.domain}
        save_weights(output / WEIGHTS, model, origin)
        write_json(output / CURVE, [_point(record) for record in result.history])
    counts = model.parameter_counts()
    facts = {
        "parameters": {"total": counts.total, "non_embedding": counts.non_embedding},
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
    }
    if result.skipped_steps:
        facts["skipped_steps"] = result.skipped_steps
    if multiples:
        facts[TEXT_MULTIPLES] = multiples
    return facts | ({"validation_ndcg@10": result.best_validation} if validation else {})


def _fit(
    data: TaskData,
    workers: Workers,
    scratch: Path,
    watched: tuple[Report, Callable[[], None] | None, Callable[[], bool] | None],
    validation: Validation | None,
) -> tuple[Recommender, TrainingResult]:
    report, on_checkpoint, should_stop = watched
    model, training = data.build(), data.task.training
    names = [domain.name for domain in data.domains]
    histories = training_histories(
        data.corpus, data.roles, names,
        interleave=data.task.interleaved, with_times=data.reads_times,
    )  # fmt: skip
    check_no_leak(data.corpus, data.roles, histories, *(validation.cases if validation else ()))

    def on_epoch(record: EpochRecord) -> None:
        if workers.rank == 0:
            figure = "" if record.validation is None else f"  ndcg@10 {record.validation:.4f}"
            if record.padding_share is not None:
                figure += f"  padding {record.padding_share:.0%}"
            measured = _figures(record, validation.by_domain if validation else None)
            remark = f"loss {record.loss:.3f}{figure}"
            report(record.epoch, training.epochs, "epochs", remark, measured)

    result = train(
        model,
        TrainingHistories(histories.offsets, histories.items - data.first_item, histories.users),
        data.domain_starts(),
        training,
        seed=data.task.seed,
        workers=workers,
        validate=validation,
        checkpoint_dir=scratch,
        on_checkpoint=on_checkpoint,
        on_epoch=on_epoch,
        domain_names=names,
        name_item=data.item_name,
        times=histories.times,
        should_stop=should_stop,
    )
    return model, result


def _text_multiples(
    model: Recommender,
    data: TaskData,
    validation: Validation | None,
    workers: Workers,
    report: Report,
) -> dict[str, float]:
    """What texts are to count after training; empty: what they count then."""
    if validation is None:
        return dict(data.task.text_multiples or {})
    if model.items.channel is None or not data.task.architecture.items.choose_text_weight:
        return {}

    def on_domain(done: int, name: str, multiple: float) -> None:
        if workers.rank == 0:
            remark = f"{name}: texts count {multiple:g} times as much"
            figures = Figures({f"by_domain/{name}/text_multiple": multiple})
            report(done, len(data.domains), "domains", remark, figures)

    return choose_text_multiples(model, data, validation, workers, on_domain)


def _point(record: EpochRecord) -> dict[str, Any]:
    """An epoch as the report's curves have it."""
    point = asdict(record)
    point["ndcg@10"] = point.pop("validation")
    return point


def _figures(record: EpochRecord, by_domain: Mapping[str, float] | None) -> Figures:
    """An epoch as the trackers have it; by_domain is None in a refit, which is not validated."""
    values = {"loss": record.loss, "lr": record.lr, "seconds": record.seconds}
    if by_domain is None:
        values = {f"refit/{name}": value for name, value in values.items()}
    if by_domain is not None and record.validation is not None:
        values["ndcg@10"] = record.validation
        values |= {f"by_domain/{name}/ndcg@10": value for name, value in by_domain.items()}
    return Figures(values, record.step, record.epoch)


def rank_with_user_model(data: TaskData, weights: Path, output: Path) -> None:
    """Rank the test targets of the task's domains with trained weights; two files a domain."""
    model = data.build()
    load_weights(weights, model)
    for domain in data.domains:
        cases = data.cases(domain, "test")
        scorer = data.scorer(model, domain, cases)
        save_ranks(output, domain.name, data.rank_by(scorer, domain, cases))
        mask_seen = data.task.evaluation.mask_seen
        save_examples(output, data.corpus, cases, scorer, mask_seen=mask_seen)
