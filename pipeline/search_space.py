"""From a search and a run's config to its trials: the values of each, drawn before any is run.

A trial's values depend on the search's seed and on its number, not on how the others end, so a
search that was stopped goes on with the same ones.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import ValidationError

from pipeline.architectures import architecture_of, sequence_model
from pipeline.config import BASELINES, JOINT_MODELS, ModelName, RunConfig
from pipeline.config_fields import ConfigField, sections
from pipeline.config_mistakes import describe_mistakes, did_you_mean
from pipeline.config_overrides import put_field
from pipeline.search_config import Draw, SearchConfig
from pipeline.user_model_task import UserModelTask
from user_model import TrainingConfig

Values = Mapping[str, Any]

_DRAWS = 1000  # how often a trial is drawn until its values fit together and are new
# All trials share these, or their figures could not be compared.
_SHARED = ("validation_users", *(f"training.{n}" for n in ("epochs", "validate_every", "patience")))


@dataclass(frozen=True)
class TrialPlan:
    """One trial: its values and the trainings that they are judged by.

    Attributes:
        number: from 0.
        values: dotted field -> value.
        tasks: one a domain, or one for all domains where the model is joint.
        weights: weights of the model without item vectors.
    """

    number: int
    values: Values
    tasks: tuple[UserModelTask, ...]
    weights: int


class _Place(NamedTuple):
    """Where a search stands, for its mistakes: the file, and a field in its space."""

    file: str
    field: str

    def mistake(self, sentence: str) -> ValueError:
        return ValueError(f"{self.file}: space.{self.field}: {sentence}")


def plan_trials(search: SearchConfig, config: RunConfig, file: str) -> list[TrialPlan]:
    """All trials of a search, in order; no two have the same values.

    Args:
        search: what is drawn, and how.
        config: what the values are put over.
        file: the search's file, for messages.

    Raises:
        ValueError: a sentence that says what does not fit: a model that learns nothing, a field
            that is not the model's, a value that it refuses, too few sets of values.
    """
    fields = _searched_fields(search, config, file)
    _check_epochs(search, config, file)
    domains = search_domains(search, config, file)
    plans: list[TrialPlan] = []
    for number in range(search.trials):
        for values in _candidates(search, fields, number):
            if any(values == plan.values for plan in plans):
                mistake = "it was tried already; lower trials or widen the space"
                continue
            try:
                plans.append(_plan(number, values, search.model, domains, config))
                break
            except ValueError as error:  # these values do not fit together
                mistake = _sentence(error)
        else:
            raise ValueError(
                f"{file}: trial {number}: none of {_DRAWS} draws can be run; the last: {mistake}"
            )
    return plans


def search_domains(search: SearchConfig, config: RunConfig, file: str) -> tuple[str, ...]:
    """The names of the domains that the search looks at, in the config's order.

    Raises:
        ValueError: the config has no such domain.
    """
    names = [domain.name for domain in config.domains]
    for name in search.domains or ():
        if name not in names:
            raise ValueError(f"{file}: domains: got {name!r}; {did_you_mean(name, names)}")
    return tuple(name for name in names if search.domains is None or name in search.domains)


def with_values(config: RunConfig, values: Values) -> RunConfig:
    """The config with values put over its fields.

    Raises:
        ValidationError: it refuses them.
    """
    content = config.model_dump(mode="json")
    for path, value in values.items():
        content = put_field(content, path.split("."), value)
    return RunConfig.model_validate(content)


def section_of(model: ModelName, config: RunConfig) -> str:
    """The section of the config that describes a trained model: user_model, sasrec ..."""
    kind = type(architecture_of(model, config))
    return next(name for name in RunConfig.model_fields if type(getattr(config, name)) is kind)


def _searched_fields(
    search: SearchConfig, config: RunConfig, file: str
) -> list[tuple[str, Draw, bool]]:
    """Each field with its draw, and whether it takes whole numbers alone."""
    if search.model in BASELINES:
        raise ValueError(f"{file}: model: {search.model} only counts, so nothing can be searched")
    section = section_of(search.model, config)
    if tried := getattr(config, section).candidates:
        raise ValueError(
            f"{file}: model: the config has {section}.candidates for {', '.join(tried)}, which "
            "would be tried over what the search finds; take them out of the config, and put "
            "their values in the space"
        )
    known = {field.path: field for field in _fields(search.model, section)}
    searched = []
    for path, draw in search.space.items():
        place = _Place(file, path)
        _check_field(path, known, section, config, search.model, place)
        whole = _whole(known[path])
        _check_values(path, draw, config, place, whole=whole)
        searched.append((path, draw, whole))
    return searched


def _fields(model: ModelName, section: str) -> Iterator[ConfigField]:
    for part in sections(RunConfig):
        if part.path == section or part.path.startswith(f"{section}."):
            yield from (
                f for f in part.fields if not f.path.endswith((".joint", ".backend", ".candidates"))
            )
    if model in JOINT_MODELS:
        for part in sections(TrainingConfig, path=f"{section}.joint"):
            yield from part.fields


def _check_field(
    path: str,
    known: Mapping[str, ConfigField],
    section: str,
    config: RunConfig,
    model: ModelName,
    place: _Place,
) -> None:
    if path not in known:
        guess = path if path.startswith(section) else f"{section}.{path.rpartition('.')[2]}"
        raise place.mistake(f"no field of {model}; {did_you_mean(guess, list(known))}")
    inner = path.removeprefix(f"{section}.").replace("joint.", "training.")
    if inner in _SHARED:
        raise place.mistake(
            f"all trials share it; set it in the config, or by {known[path].option}"
        )
    over = config.user_model.joint if model in JOINT_MODELS else {}
    if (name := path.removeprefix("user_model.training.")) in over:
        raise place.mistake(f"has no effect, since the config sets user_model.joint.{name}")


def _whole(field: ConfigField) -> bool:
    return int in field.members and float not in field.members


def _check_values(path: str, draw: Draw, config: RunConfig, place: _Place, *, whole: bool) -> None:
    """See that the field takes each value; how values fit together is seen when they are drawn."""
    path = path.replace(".joint.", ".training.")  # which joint is put over, and which is typed
    for value in draw.choice or draw.bounds or ():
        if draw.bounds is not None and whole:
            if not float(value).is_integer():
                raise place.mistake(f"got {value:g}, expected whole numbers")
            value = int(value)
        try:
            taken = _value_at(path, with_values(config, {path: value}))
        except ValidationError as error:
            own = [
                e
                for e in error.errors()
                if f"{'.'.join(map(str, e['loc']))}.".startswith(f"{path}.")
            ]
            if own:
                raise place.mistake(f"{own[0]['msg']}, got {value!r}") from error
            continue
        if taken != value or isinstance(taken, bool) != isinstance(value, bool):
            raise place.mistake(f"got {value!r}, which is read as {taken!r}; write that")


def _value_at(path: str, config: RunConfig) -> Any:
    return functools.reduce(operator.getitem, path.split("."), config.model_dump(mode="json"))


def _check_epochs(search: SearchConfig, config: RunConfig, file: str) -> None:
    training = architecture_of(search.model, config).training
    least, most = training.validate_every, training.epochs
    if not least <= search.grace_epochs <= most:
        raise ValueError(
            f"{file}: grace_epochs: got {search.grace_epochs}, expected {least} "
            f"(training.validate_every) to {most} (training.epochs)"
        )


def _scopes(model: ModelName, domains: tuple[str, ...]) -> tuple[str | None, ...]:
    return (None,) if model in JOINT_MODELS else domains


def _candidates(
    search: SearchConfig, fields: list[tuple[str, Draw, bool]], number: int
) -> Iterator[Values]:
    """Sets of values for one trial; a field's do not depend on what other fields there are."""
    for attempt in range(_DRAWS):
        yield {
            path: draw.draw(
                np.random.default_rng([search.seed, number, attempt, *path.encode()]), whole=whole
            )
            for path, draw, whole in fields
        }


def _plan(
    number: int, values: Values, model: ModelName, domains: tuple[str, ...], config: RunConfig
) -> TrialPlan:
    chosen = with_values(config, values)
    tasks = tuple(
        UserModelTask.of(model, scope, chosen).choosing() for scope in _scopes(model, domains)
    )
    with torch.device("meta"):  # shapes alone: what cannot be built raises here
        body = sequence_model(model, tasks[0].architecture)
    return TrialPlan(number, values, tasks, sum(weight.numel() for weight in body.parameters()))


def _sentence(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        return describe_mistakes(error, RunConfig, "the config").splitlines()[0]
    return str(error)
