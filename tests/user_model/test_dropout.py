import pytest
import torch
from torch import nn

from user_model.dropout import TokenDropout, keyed_dropout
from user_model.ops.dropout import keep_mask, mix, mix_integers


def keys(n, seed=0):
    return mix(torch.arange(n) + mix_integers(seed))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_unit_is_dropped_with_probability_p(p):
    kept = keep_mask(keys(20000), 6, p).double()
    # Four standard deviations of a mean of 20,000 draws, and of 120,000.
    assert kept.mean(0) == pytest.approx([1 - p] * 6, abs=4 * 0.5 / 20000**0.5)
    assert float(kept.mean()) == pytest.approx(1 - p, abs=4 * 0.5 / 120000**0.5)


def test_columns_and_rows_drop_independently():
    kept = keep_mask(keys(20000), 8, 0.5).double() - 0.5
    correlation = kept.T @ kept / len(kept) * 4
    assert (correlation - torch.eye(8)).abs().max() < 5 / 20000**0.5
    neighbours = (kept[1:] * kept[:-1]).mean(0) * 4
    assert neighbours.abs().max() < 5 / 20000**0.5


def test_the_mask_of_a_token_does_not_depend_on_the_others():
    everyone = keys(50)
    assert torch.equal(keep_mask(everyone, 10, 0.3)[20:30], keep_mask(everyone[20:30], 10, 0.3))


def test_sites_of_one_model_drop_different_units_and_repeat_for_the_same_keys():
    model = nn.ModuleList([TokenDropout(0.5), TokenDropout(0.5)])
    x = torch.ones(30, 8)
    with keyed_dropout(model, keys(30)):
        first = [site(x) for site in model]
    with keyed_dropout(model, keys(30)):
        again = [site(x) for site in model]
    assert not torch.equal(first[0], first[1])
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert set(first[0].unique().tolist()) == {0.0, 2.0}


def test_evaluation_and_p_zero_change_nothing():
    x = torch.randn(5, 4)
    assert TokenDropout(0.0)(x) is x
    assert TokenDropout(0.5).eval()(x) is x


def test_outside_keyed_dropout_it_is_torchs_own():
    x = torch.ones(200, 8)
    torch.manual_seed(1)
    dropped = TokenDropout(0.5)(x)
    torch.manual_seed(1)
    assert torch.equal(dropped, nn.functional.dropout(x, 0.5))
