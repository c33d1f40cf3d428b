import pytest
import torch

from user_model.items import ItemTable, ItemTableConfig, whitened


@pytest.fixture
def text():
    return torch.randn(40, 12) * torch.linspace(0.1, 3, 12) + 5.0


def test_ids_alone_are_the_rows():
    table = ItemTable(10, 4)
    items = torch.tensor([3, 3, 9])
    assert torch.equal(table(items), table.ids[items])


def test_text_is_standardised_over_the_corpus(text):
    table = ItemTable(40, 12, text, ids=False)
    torch.nn.init.eye_(table.text_projection.weight)
    vectors = table(torch.arange(40))
    torch.testing.assert_close(vectors.mean(0), torch.zeros(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(vectors.square().mean(0), torch.ones(12), atol=1e-5, rtol=0)


def test_a_text_column_that_never_changes_gives_zero():
    table = ItemTable(6, 2, torch.ones(6, 2), ids=False)
    assert torch.equal(table(torch.arange(6)), torch.zeros(6, 2))


def test_text_and_id_add_up_for_seen_items_alone(text):
    table = ItemTable(40, 8, text)
    table.mark_seen(torch.tensor([1, 2]))
    projected = ItemTable.compose(table, torch.arange(40), None)
    got = table(torch.arange(40))
    assert torch.equal(got[[1, 2]], (projected + table.ids)[[1, 2]])
    assert torch.equal(got[3:], projected[3:])


def test_without_text_every_item_keeps_its_id():
    table = ItemTable(5, 4)
    table.mark_seen(torch.tensor([1]))
    assert torch.equal(table(torch.arange(5)), table.ids)


def test_id_dropout_leaves_text_and_depends_on_the_key(text):
    table = ItemTable(40, 8, text, id_dropout=0.5)
    items = torch.arange(40)
    projected = table.compose(items, None)
    got = [table.compose(items, table.ids[items], key=k) for k in (1, 1, 2)]
    dropped = [(g == projected).all(1) for g in got]
    assert 8 < int(dropped[0].sum()) < 32
    assert torch.equal(dropped[0], dropped[1])
    assert not torch.equal(dropped[0], dropped[2])
    assert not (table.eval()(items) == projected).all(1).any()


def test_text_vectors_are_frozen_and_not_saved(text):
    state = ItemTable(40, 8, text).state_dict()
    assert sorted(state) == [
        "ids", "seen", "text_mean", "text_projection.bias", "text_projection.weight", "text_scale",
    ]  # fmt: skip
    assert not ItemTable(40, 8, text).text_vectors.requires_grad


def test_what_makes_no_table_raises(text):
    with pytest.raises(ValueError, match="no text vectors; an item needs"):
        ItemTable(5, 4, ids=False)
    with pytest.raises(ValueError, match=r"got shape \(40, 12\), expected \[41, d_text\]"):
        ItemTable(41, 4, text)
    with pytest.raises(ValueError, match=r"id_dropout: got 0.1 without text"):
        ItemTable(5, 4, id_dropout=0.1)
    text[3, 3] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        ItemTable(40, 4, text)
    with pytest.raises(ValueError, match="text: the item table is to use text vectors"):
        ItemTable.build(ItemTableConfig(text=True), 5, 8, None)


def test_a_table_built_by_config_ignores_text_it_is_not_to_use(text):
    table = ItemTable.build(ItemTableConfig(text=False), 40, 8, text)
    assert table.text_projection is None


FROM_TEXT = ItemTableConfig(ids="from_text", text=False, id_std=0.05)


def test_ids_may_begin_as_the_texts_whitened_components(text):
    table = ItemTable.build(FROM_TEXT, 40, 8, text)
    assert table.text_projection is None
    assert table.ids.requires_grad
    ids = table.ids.detach().double() / 0.05
    torch.testing.assert_close(ids.T @ ids / 40, torch.eye(8).double(), atol=1e-5, rtol=0)
    # By the singular vectors of the centred texts, another way to the same but for signs.
    centred = text.double() - text.double().mean(0)
    left = torch.linalg.svd(centred, full_matrices=False).U[:, :8] * 40**0.5
    torch.testing.assert_close((left.T @ ids / 40).abs(), torch.eye(8).double(), atol=1e-5, rtol=0)


def test_columns_that_the_texts_do_not_fill_are_drawn():
    torch.manual_seed(0)
    flat = torch.randn(400, 3) @ torch.randn(3, 12)  # three directions
    assert whitened(flat, 8).shape == (400, 3)
    ids = ItemTable.build(FROM_TEXT, 400, 8, flat).ids
    assert torch.equal(ids[:, :3], 0.05 * whitened(flat, 8))
    assert 0.04 < float(ids.detach()[:, 3:].std()) < 0.06
    assert whitened(torch.ones(5, 4), 3).shape == (5, 0)


def test_texts_may_begin_the_ids_and_be_projected_too(text):
    both = FROM_TEXT.model_copy(update={"text": True})
    table = ItemTable.build(both, 40, 8, text)
    got, projected = table(torch.arange(40)), table.compose(torch.arange(40), None)
    torch.testing.assert_close(got - projected, 0.05 * whitened(text, 8))


def test_some_rows_of_some_columns_may_be_started():
    torch.manual_seed(0)
    config = ItemTableConfig(ids="from_histories", text=False, id_std=0.1)
    table = ItemTable.build(config, 4, 3, None)
    assert table.ids_from_histories
    drawn, told = table.ids.detach().clone(), torch.tensor([True, False, True, False])
    table.start_ids(torch.arange(8.0).view(4, 2), told)
    assert torch.equal(table.ids[told][:, :2], 0.1 * torch.tensor([[0.0, 1.0], [4.0, 5.0]]))
    assert torch.equal(table.ids[~told], drawn[~told])
    assert torch.equal(table.ids[:, 2], drawn[:, 2])
    assert table.ids.requires_grad
    assert table.ids.is_leaf


def test_ids_that_begin_from_absent_or_misplaced_text_raise(text):
    with pytest.raises(ValueError, match=r"ids: from_text: the item table .* got none"):
        ItemTable.build(FROM_TEXT, 5, 8, None)
    with pytest.raises(ValueError, match=r"got shape \(40, 12\), expected \[41, d_text\]"):
        ItemTable.build(FROM_TEXT, 41, 8, text)
