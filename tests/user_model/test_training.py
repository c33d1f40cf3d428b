import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from user_model import (
    Hydra,
    HydraConfig,
    ItemTable,
    Recommender,
    SASRec,
    SASRecConfig,
    TrainingConfig,
    cooccurrence,
    train,
)
from user_model.checkpoint import CheckpointError
from user_model.cooccurrence import cooccurrence_vectors
from user_model.step import NonFiniteLossError


def recommender(name="hydra", n_items=50, text=None):
    """A model by its name; `NAME, started` has id vectors that begin from the histories."""
    torch.manual_seed(0)
    name, *started = name.split(", ")
    sequence = {
        "hydra": lambda: Hydra(HydraConfig(dim=16, layers=1, dropout=0.1)),
        "sasrec": lambda: SASRec(SASRecConfig(dim=16, layers=1, dropout=0.1)),
    }[name]()
    table = ItemTable(n_items, 16, text, ids_from_histories=bool(started))
    return Recommender(table, sequence)


def settings(**kwargs):
    chosen = {
        "epochs": 4, "batch_tokens": 128, "negatives": 16, "negatives_tile": 32, "lr": 0.01,
        "warmup_steps": 5,
    }  # fmt: skip
    return TrainingConfig(**(chosen | kwargs))


def next_item_accuracy(model, low=0, high=30):
    """Share of circle walks whose next item comes first among the domain's items."""
    starts = np.arange(low, high)
    walk = low + (starts[:, None] - low + np.arange(4)) % (high - low)
    users = model.encode_histories(np.arange(0, 4 * len(walk) + 1, 4), walk.ravel())
    with torch.no_grad():
        scores = users @ model.item_vectors(torch.arange(low, high)).T
    expected = (walk[:, -1] - low + 1) % (high - low)
    return float((scores.argmax(1).numpy() == expected).mean())


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("loss", ["infonce", "bce"])
@pytest.mark.parametrize("name", ["hydra", "sasrec"])
def test_it_learns_which_item_follows(name, loss, circles, domain_starts):
    model = recommender(name)
    before = next_item_accuracy(model), next_item_accuracy(model, 30, 50)
    result = train(model, circles, domain_starts, settings(epochs=25, loss=loss), seed=0)
    assert max(before) < 0.2
    assert next_item_accuracy(model) > 0.8
    assert next_item_accuracy(model, 30, 50) > 0.8
    losses = [record.loss for record in result.history]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    "recipe",
    [
        {"in_batch_share": 1.0, "log_q": True},
        {"popularity_share": 0.5, "in_batch_share": 0.2, "log_q": True},
        {"hard_negatives": 4},
        {"schedule": "linear"},
        {"schedule": "constant", "ema_decay": 0.9},
    ],
    ids=str,
)
def test_every_piece_of_the_recipe_learns(recipe, circles, domain_starts):
    model = recommender()
    train(model, circles, domain_starts, settings(epochs=25, **recipe), seed=0)
    assert next_item_accuracy(model) > 0.8


def test_with_the_last_target_alone_the_others_teach_nothing(domain_starts):
    """Rows 0 1 2: the step from 0 to 1 has no loss, so only the draws tell 1 from the rest."""
    rows = SimpleNamespace(offsets=np.arange(0, 121, 3), items=np.tile([0, 1, 2], 40))
    ranks = {}
    for positions in ("all", "last"):
        model = recommender()
        config = settings(epochs=10, batch_tokens=20, positions=positions)
        result = train(model, rows, domain_starts, config, seed=0)
        users = model.encode_histories(np.array([0, 1, 3]), np.array([0, 0, 1]))
        with torch.no_grad():
            scores = users @ model.item_vectors(torch.arange(30)).T
        ranks[positions] = [
            int((s > s[target]).sum()) for s, target in zip(scores, (1, 2), strict=True)
        ]
        targets = {"all": 2, "last": 1}[positions]
        assert result.history[0].tokens_per_second == pytest.approx(
            40 * targets / result.history[0].seconds
        )
    assert ranks["all"] == [0, 0]
    assert ranks["last"][0] > 0
    assert ranks["last"][1] == 0


def test_text_alone_carries_items_that_training_never_saw(domain_starts, circles):
    text = torch.randn(52, 12)
    model = recommender(n_items=52, text=text)
    before = model.items.ids.detach().clone()
    train(model, circles, domain_starts, settings(epochs=1), seed=0)
    unseen = torch.tensor([50, 51])
    assert torch.equal(model.items.ids[unseen], before[unseen])
    assert not model.items.seen[unseen].any()
    torch.testing.assert_close(model.items(unseen), model.items.compose(unseen, None))


def test_the_same_seed_gives_the_same_bits_and_another_another(circles, domain_starts):
    runs = []
    for seed in (1, 1, 2):
        model = recommender()
        train(model, circles, domain_starts, settings(epochs=1), seed=seed)
        runs.append(weights(model))
    assert_same(runs[0], runs[1])
    assert not torch.equal(runs[0]["items.ids"], runs[2]["items.ids"])


def test_the_callers_generator_is_left_alone(circles, domain_starts):
    model = recommender()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(model, circles, domain_starts, settings(epochs=1), seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_the_best_epoch_is_kept_and_patience_ends_it(circles, domain_starts):
    values = iter([0.1, 0.5, 0.4, 0.5, 0.3, 0.9])
    model, seen = recommender(), []

    def validate(candidate):
        assert not candidate.training
        assert not torch.is_grad_enabled()
        seen.append(weights(candidate))
        return next(values)

    result = train(
        model, circles, domain_starts, settings(epochs=9, patience=3), seed=0, validate=validate
    )
    assert result.stopped_early
    assert (result.epochs, result.best_epoch, result.best_validation) == (5, 2, 0.5)
    assert_same(weights(model), seen[1])
    assert not model.training


def test_every_few_epochs_and_the_last_are_validated(circles, domain_starts):
    result = train(
        recommender(), circles, domain_starts, settings(epochs=5, validate_every=2), seed=0,
        validate=lambda model: 1.0,
    )  # fmt: skip
    validated = [r.epoch for r in result.history if r.validation is not None]
    assert validated == [2, 4, 5]


def test_without_validation_the_last_weights_stay(circles, domain_starts):
    result = train(recommender(), circles, domain_starts, settings(epochs=2), seed=0)
    assert (result.best_epoch, result.best_validation, result.stopped_early) == (2, None, False)


class KilledError(Exception):
    pass


@pytest.mark.faults
@pytest.mark.parametrize("ema_decay", [0.0, 0.8])
@pytest.mark.parametrize("name", ["hydra", "sasrec", "hydra, started"])
@pytest.mark.parametrize("killed_at", [3, 7, 8, 12])
def test_a_resumed_training_ends_with_the_same_bits(
    name, killed_at, ema_decay, circles, domain_starts, tmp_path
):
    config = settings(epochs=3, checkpoint_steps=2, ema_decay=ema_decay)
    values = {1: 0.5, 2: 0.7, 3: 0.6}

    def run(model, folder, stop_at=None):
        epochs = []

        def on_step(record):
            if record.step == stop_at:
                raise KilledError

        result = train(
            model, circles, domain_starts, config, seed=0, checkpoint_dir=folder, on_step=on_step,
            validate=lambda m: values[len(epochs) + done], on_epoch=epochs.append,
        )  # fmt: skip
        return result, epochs

    done = 1
    whole = recommender(name)
    expected, _ = run(whole, None)
    interrupted = recommender(name)
    with pytest.raises(KilledError):
        run(interrupted, tmp_path, stop_at=killed_at)
    resumed = recommender(name)
    torch.nn.init.zeros_(resumed.items.ids)
    steps_an_epoch = expected.steps // 3
    done = 1 + (killed_at - 1) // steps_an_epoch
    got, _ = run(resumed, tmp_path)
    assert_same(weights(resumed), weights(whole))
    assert [r.loss for r in got.history] == [r.loss for r in expected.history]
    assert (got.best_epoch, got.best_validation) == (expected.best_epoch, expected.best_validation)
    assert len(list(tmp_path.iterdir())) <= 2


@pytest.mark.parametrize(
    ("name", "ema_decay"),
    [("hydra", 0.0), ("hydra", 0.8), ("sasrec", 0.0), ("hydra, started", 0.8)],
)
def test_epochs_one_call_each_end_with_the_bits_of_one_call(
    name, ema_decay, circles, domain_starts, tmp_path
):
    values = [0.5, 0.7, 0.6]
    whole, paused, epochs = recommender(name), recommender(name), []
    config = settings(epochs=3, ema_decay=ema_decay)
    figures = iter(values)
    expected = train(
        whole, circles, domain_starts, config, seed=0, validate=lambda m: next(figures)
    )
    for number in (1, 2, 3):
        got = train(
            paused, circles, domain_starts, config, seed=0, checkpoint_dir=tmp_path,
            validate=lambda m: values[len(epochs)], on_epoch=epochs.append, until_epoch=number,
        )  # fmt: skip
        assert (got.epochs, len(epochs)) == (number, number)
    assert_same(weights(paused), weights(whole))
    assert [r.loss for r in got.history] == [r.loss for r in expected.history]
    assert [r.lr for r in got.history] == [r.lr for r in expected.history]
    assert (got.best_epoch, got.best_validation) == (2, 0.7)
    assert all(r.cpu_seconds > 0.0 for r in got.history)


def test_id_vectors_start_from_the_histories_and_the_time_is_counted(
    circles, domain_starts, monkeypatch
):
    began = []

    def slow(histories, starts, most):
        began.append(starts.tolist())
        time.sleep(0.3)
        return cooccurrence_vectors(histories, starts, most)

    monkeypatch.setattr(cooccurrence, "cooccurrence_vectors", slow)
    model, plain = recommender("hydra, started"), recommender()
    assert torch.equal(model.items.ids, plain.items.ids)
    still = settings(epochs=2, lr=1e-9)
    result = train(model, circles, domain_starts, still, seed=0)
    first, told = cooccurrence_vectors(circles, domain_starts, 16)
    assert told.all()
    ids = model.items.ids.detach()[:, : first.shape[1]]
    torch.testing.assert_close(ids, 0.02 * first, atol=1e-5, rtol=0)
    assert began == [domain_starts.tolist()]
    assert result.history[0].seconds > 0.3
    # Near each other in histories is near each other in the table: neighbours on the circle.
    units = torch.nn.functional.normalize(ids[:30], dim=1)
    assert (units * units.roll(1, 0)).sum(1).mean() > 0.3
    train(plain, circles, domain_starts, still, seed=0)
    assert not torch.allclose(plain.items.ids, model.items.ids, atol=1e-3)


def test_a_pause_needs_a_folder_of_checkpoints(circles, domain_starts):
    with pytest.raises(ValueError, match="until_epoch: got 1 without checkpoint_dir"):
        train(recommender(), circles, domain_starts, settings(), seed=0, until_epoch=1)


def mean_of_steps(models, decay):
    """The weighted mean of the weights after each step, the last one counting 1."""
    shares = [decay ** (len(models) - 1 - i) for i in range(len(models))]
    return {
        name: sum(s * m[name].double() for s, m in zip(shares, models, strict=True)) / sum(shares)
        for name in models[0]
    }


@pytest.mark.parametrize("validated", [True, False])
def test_the_average_of_the_steps_is_validated_and_kept(validated, circles, domain_starts):
    model, steps, seen = recommender(), [], []
    train(
        model, circles, domain_starts, settings(epochs=2, ema_decay=0.7), seed=0,
        on_step=lambda record: steps.append(weights(model)),
        validate=(lambda m: seen.append(weights(m)) or len(seen)) if validated else None,
    )  # fmt: skip
    expected = mean_of_steps(steps, 0.7)
    for name, tensor in weights(model).items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert not torch.equal(steps[-1]["items.ids"], model.items.ids)
    if validated:
        assert_same(weights(model), seen[-1])


def test_the_average_does_not_change_what_is_learned(circles, domain_starts):
    losses = []
    for decay in (0.0, 0.9):
        result = train(
            recommender(), circles, domain_starts, settings(ema_decay=decay), seed=0,
            validate=lambda m: 1.0,
        )  # fmt: skip
        losses.append([record.loss for record in result.history])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("ema_decay", [0.0, 0.8])
@pytest.mark.parametrize("validate", [lambda model: 1.0, None])
def test_a_finished_training_is_not_trained_again(
    ema_decay, validate, circles, domain_starts, tmp_path
):
    first, second, steps = recommender(), recommender(), []
    kwargs = {"seed": 0, "checkpoint_dir": tmp_path, "validate": validate}
    config = settings(ema_decay=ema_decay)
    expected = train(first, circles, domain_starts, config, **kwargs)
    got = train(second, circles, domain_starts, config, on_step=steps.append, **kwargs)
    assert got == expected
    assert steps == []
    assert_same(weights(first), weights(second))


def test_each_checkpoint_is_told_once_all_but_the_last_two_are_gone(
    circles, domain_starts, tmp_path
):
    told = []

    def on_checkpoint():
        told.append(sorted(path.name for path in tmp_path.iterdir()))

    config = settings(checkpoint_steps=1)
    result = train(
        recommender(), circles, domain_starts, config, seed=0,
        checkpoint_dir=tmp_path, on_checkpoint=on_checkpoint,
    )  # fmt: skip
    steps = result.history[-1].step
    names = [f"step-{step:09d}" for step in range(1, steps + 1)]
    assert told == [names[max(0, last - 2) : last] for last in range(1, steps + 1)]


def test_a_checkpoint_of_another_training_is_refused(circles, domain_starts, tmp_path):
    train(recommender(), circles, domain_starts, settings(), seed=0, checkpoint_dir=tmp_path)
    with pytest.raises(CheckpointError, match="with another config"):
        train(
            recommender(), circles, domain_starts, settings(lr=0.02), seed=0,
            checkpoint_dir=tmp_path,
        )  # fmt: skip
    with pytest.raises(CheckpointError, match="with another seed"):
        train(recommender(), circles, domain_starts, settings(), seed=1, checkpoint_dir=tmp_path)


def test_a_loss_that_is_no_number_names_step_and_domains_and_spares_the_weights(
    circles, domain_starts
):
    model = recommender()
    model.sequence_model.norm.weight.data[0] = float("nan")
    before = weights(model)
    with pytest.raises(NonFiniteLossError, match=r"step 1, epoch 1, with targets of books, toys"):
        train(model, circles, domain_starts, settings(), seed=0, domain_names=["books", "toys"])
    after = weights(model)
    assert torch.equal(before["items.ids"], after["items.ids"])


def test_a_table_too_small_for_the_domains_raises(circles, domain_starts):
    with pytest.raises(ValueError, match="domain_starts: ends at 50, expected at most the 40"):
        train(recommender(n_items=40), circles, domain_starts, settings(), seed=0)
