"""The streamed form of a recommender's users is its parallel form, at any split."""

import numpy as np
import pytest
import torch

from user_model import Hydra, HydraConfig, ItemTable, ItemTableConfig, Recommender
from user_model.compiled_step import CompiledStep
from user_model.new_items import NewItems
from user_model.streamed_users import ChannelSettings, StreamedUsers, UserStream
from user_model.text_channel import decayed_means, last_sums, mean_of_sums

STARTS = torch.tensor([0, 40, 60])
FORMS = {
    "plain": ({}, {}),
    "history_mean": ({"history_mean": True}, {"text_channel": True}),
    "decay 1": ({"history_mean": True}, {"text_channel": True, "text_decay": 1.0}),
    "shorter memory": ({}, {"text_channel": True, "text_ranking_decay": 0.4}),
    "lean": ({"head": "lean"}, {"text_channel": True, "text_weight": 0.7}),
    "times": ({"time_gaps": True}, {"text_channel": True}),
    "odd shapes": ({"heads": 3, "head_dim": 6, "state_dim": 5, "ffn_dim": 21}, {}),
    "without Z": ({"interaction": False}, {}),
    "without RoPE": ({"rope": False}, {}),
}


def recommender(form, *, normalise=True):
    generator = torch.Generator().manual_seed(0)
    texts = torch.randn(60, 6, generator=generator) @ torch.randn(6, 6, generator=generator) + 2
    hydra, items = FORMS[form]
    table = ItemTable.build(ItemTableConfig(**items), 60, 16, texts, STARTS)
    config = HydraConfig(dim=16, layers=2, **hydra)
    model = Recommender(table, Hydra(config), normalise=normalise).eval()
    with torch.no_grad():  # what begins at zero takes part
        for name, parameter in model.named_parameters():
            if name.endswith(("gap_weight", "gap_vectors", "history_mean.linear.weight")):
                parameter.normal_(std=0.3)
    return model.requires_grad_(False)


def stream_of(model, *, compiled=False):
    channel = model.items.channel
    settings = None
    if channel is not None:
        settings = ChannelSettings(channel.width, channel.decay, float(channel.weights[1]))
    compiled = CompiledStep(model.sequence_model) if compiled else None
    return UserStream(model.sequence_model, settings, normalise=model.normalise, compiled=compiled)


def read(model, stream, before, items, seams, times):
    texts = torch.zeros(len(items), 0)
    if model.items.channel is not None:
        texts = model.items.channel.items(items)
    when = times if model.sequence_model.reads_times else None
    return stream.extend(before, model.items(items), texts, seams, when)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("normalise", [True, False])
def test_any_split_gives_the_parallel_form(form, normalise):
    model = recommender(form, normalise=normalise)
    stream = stream_of(model)
    lengths = [7, 0, 70, 1]
    items = torch.randint(40, 60, (sum(lengths),))
    times = torch.randint(0, 10**6, (len(items),)).cumsum(0)
    seams = torch.tensor(np.cumsum([0, *lengths]))
    whole = read(model, stream, stream.start(4), items, seams, times)
    filled = torch.tensor([0, 2, 3])
    expected = model.user_vectors(items, seams, times)[seams[1:][filled] - 1]
    torch.testing.assert_close(stream.vectors(whole)[filled], expected, rtol=1e-5, atol=1e-5)
    assert not stream.vectors(whole)[1].any()
    for parts in ([3, 0, 64, 1], [0, 0, 69, 0], [7, 0, 70, 1]):
        first = torch.cat([torch.arange(s, s + n) for s, n in zip(seams, parts, strict=False)])
        rest = torch.tensor([i for i in range(len(items)) if i not in set(first.tolist())]).long()
        left = torch.tensor(lengths) - torch.tensor(parts)
        state = read(
            model, stream, stream.start(4), items[first],
            torch.tensor(np.cumsum([0, *parts])), times[first],
        )  # fmt: skip
        after = torch.tensor(np.cumsum([0, *left.tolist()]))
        state = read(model, stream, state, items[rest], after, times[rest])
        torch.testing.assert_close(stream.vectors(state), stream.vectors(whole), rtol=0, atol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_a_step_is_one_event_of_each(form, compiled):
    model = recommender(form)
    stream = stream_of(model, compiled=compiled)
    items = torch.randint(40, 60, (3, 12))
    times = torch.randint(0, 10**6, (3, 12)).cumsum(1)
    state = stream.start(3)
    for column in range(12):
        texts = torch.zeros(3, 0)
        if model.items.channel is not None:
            texts = model.items.channel.items(items[:, column])
        when = times[:, column] if model.sequence_model.reads_times else None
        state = stream.step(state, model.items(items[:, column]), texts, when)
    expected = model.user_vectors(items.ravel(), torch.arange(0, 37, 12), times.ravel())[11::12]
    torch.testing.assert_close(stream.vectors(state), expected, rtol=1e-5, atol=1e-5)
    again = StreamedUsers.from_dict(state.to_dict()).select(torch.tensor([2, 0]))
    torch.testing.assert_close(stream.vectors(again), expected[[2, 0]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("decay", [0.8, 1.0])
def test_last_sums_are_those_behind_the_means(decay):
    rows, seams = torch.randn(140, 3, dtype=torch.float64), torch.tensor([0, 130, 130, 140])
    means = decayed_means(rows, seams, decay)
    sums = last_sums(rows, seams, decay)
    torch.testing.assert_close(
        mean_of_sums(sums[[0, 2]], seams.diff()[[0, 2]], decay), means[[129, 139]]
    )
    first = last_sums(rows[:50], torch.tensor([0, 50, 50, 50]), decay)
    rest = last_sums(rows[50:], torch.tensor([0, 80, 80, 90]), decay, first)
    torch.testing.assert_close(rest, sums)


def test_a_missing_tensor_is_named():
    state = stream_of(recommender("plain")).start(1).to_dict()
    state.pop("last")
    with pytest.raises(ValueError, match="no tensor 'last'"):
        StreamedUsers.from_dict(state)


@pytest.mark.parametrize(
    "config",
    [
        {"text_channel": True},
        {"domain_embedding": True, "domain_projections": True, "text_channel": True},
        {"ids": False},
    ],
)
def test_new_items_are_what_the_table_makes_of_unseen_ones(config):
    texts = torch.randn(60, 6) @ torch.randn(6, 6) + 3
    settings = ItemTableConfig(**config)
    table = ItemTable.build(settings, 60, 16, texts, STARTS).eval().requires_grad_(False)
    if table.domains is not None:
        for parameter in table.domains.parameters():
            parameter.normal_()
    table.seen[:] = False
    for number, items in enumerate((slice(0, 40), slice(40, 60))):
        new = NewItems.of(table, settings, texts, number, items)
        again = NewItems.from_dict(new.to_dict())
        rows = torch.arange(60)[items]
        torch.testing.assert_close(again.inputs(texts[items]), table(rows), rtol=1e-5, atol=1e-5)
        if table.channel is not None:
            expected = table.channel.items(rows)
            torch.testing.assert_close(again.columns(texts[items]), expected, rtol=0, atol=1e-5)


def test_without_a_projection_new_items_are_components_or_nothing():
    texts = torch.randn(60, 6)
    started = ItemTableConfig(ids="from_text", text=False)
    table = ItemTable.build(started, 60, 4, texts, STARTS).requires_grad_(False)
    new = NewItems.of(table, started, texts, 0, slice(0, 40))
    torch.testing.assert_close(new.inputs(texts), table.ids.data, rtol=1e-4, atol=1e-6)
    channel = ItemTableConfig(text=False, text_channel=True)
    table = ItemTable.build(channel, 60, 4, texts, STARTS)
    new = NewItems.of(table, channel, texts, 0, slice(0, 40))
    assert not new.inputs(texts).any()
    assert new.columns(texts[:1]).norm() == pytest.approx(1.0)
    alone = ItemTableConfig(text=False)
    assert NewItems.of(ItemTable.build(alone, 60, 4, None), alone, texts, 0, slice(0, 40)) is None
