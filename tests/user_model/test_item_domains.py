"""What domains add to item vectors, against the plain sum over each item by itself."""

import pytest
import torch

from user_model.config_keys import key_fields
from user_model.item_domains import ItemDomains
from user_model.items import ItemTable, ItemTableConfig

STARTS = torch.tensor([0, 7, 7, 20])  # the second domain has no items


@pytest.fixture
def text():
    torch.manual_seed(0)
    return torch.randn(20, 5)


def filled(**fields):
    domains = ItemDomains(STARTS, 4, **({"d_text": 5, "embedding": True} | fields))
    for parameter in domains.parameters():
        torch.nn.init.normal_(parameter)
    return domains


def domain_of(item):
    return 0 if item < 7 else 2


def test_each_item_gets_its_own_domains_vector_and_projection(text):
    domains = filled()
    items = torch.tensor([19, 0, 6, 7, 7, 3])
    got = domains(items, text[items])
    for row, item in enumerate(items.tolist()):
        number = domain_of(item)
        expected = domains.vectors[number] + text[item] @ domains.projections[number]
        torch.testing.assert_close(got[row], expected)


@pytest.mark.parametrize("fields", [{"d_text": 0}, {"embedding": False}])
def test_either_part_stands_alone(text, fields):
    domains = filled(**fields)
    items = torch.arange(20)
    for item, got in zip(items.tolist(), domains(items, text), strict=True):
        number = domain_of(item)
        if domains.projections is None:
            expected = domains.vectors[number]
        else:
            expected = text[item] @ domains.projections[number]
        torch.testing.assert_close(got, expected)


def test_gradients_are_those_of_the_plain_sum(text):
    domains = filled().double()
    items = torch.tensor([19, 0, 6, 7, 7, 3])
    assert torch.autograd.gradcheck(
        lambda v, p: torch.func.functional_call(
            domains, {"vectors": v, "projections": p}, (items, text[items].double())
        ),
        (domains.vectors, domains.projections),
    )


def built(vectors, **fields):
    torch.manual_seed(1)
    return ItemTable.build(ItemTableConfig(**fields), 20, 4, vectors, STARTS)


def test_a_fresh_table_is_that_of_one_catalogue(text):
    plain = built(text)
    table = built(text, domain_embedding=True, domain_projections=True)
    assert torch.equal(table(torch.arange(20)), plain(torch.arange(20)))


def test_ids_alone_can_have_domains_too():
    table = built(None, text=False, domain_embedding=True)
    torch.nn.init.ones_(table.domains.vectors[2:])
    expected = table.ids + (torch.arange(20) >= 7)[:, None].float()
    assert torch.equal(table(torch.arange(20)), expected)


def test_projections_need_texts():
    with pytest.raises(ValueError, match="domain_projections: projects text vectors"):
        built(None, text=False, domain_projections=True)


def test_both_are_learned_and_saved(text):
    table = built(text, domain_embedding=True, domain_projections=True)
    table(torch.arange(7)).sum().backward()
    assert table.domains.vectors.grad[0].abs().sum() > 0
    assert table.domains.projections.grad[1:].abs().sum() == 0
    assert {"domains.vectors", "domains.projections"} <= set(table.state_dict())


def test_what_is_off_leaves_the_keys_of_older_outputs_as_they_were():
    assert "domain_embedding" not in key_fields(ItemTableConfig())
    assert key_fields(ItemTableConfig(domain_embedding=True))["domain_embedding"] is True
