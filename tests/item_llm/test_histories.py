"""The objective `histories`: the encoder learns under a user model that reads whole histories."""

import numpy as np
import pytest
import torch
from tiny_models import item_histories
from zero_launch import assert_same_losses, losses, torchrun

from item_llm import FinetuningConfig, ItemLLMConfig, ItemPairs, finetune, next_item_pairs
from item_llm.batches import HistoryBatches
from item_llm.histories import runs_of
from item_llm.objective import EncodedPairs, next_item_loss


def pairs_of(rows, domain_starts=(0, 10, 20)):
    offsets = np.cumsum([0, *map(len, rows)])
    items = np.concatenate([np.array(row) for row in rows])
    return next_item_pairs(offsets, items, np.array(domain_starts))


def test_runs_are_rows_cut_at_gaps_domains_and_the_longest():
    pairs = pairs_of([[1, 2, 3, 4, 5, 6], [6, 7], [3, 12, 13, 4], [1, 1, 2]])
    found = [
        list(zip(pairs.source[a:b], pairs.target[a:b], strict=True))
        for a, b in zip(runs_of(pairs, 3)[:-1], runs_of(pairs, 3)[1:], strict=True)
    ]
    assert found == [
        [(1, 2), (2, 3), (3, 4)],
        [(4, 5), (5, 6)],
        [(6, 7)],
        [(3, 12), (12, 13)],
        [(13, 4)],
        [(1, 2)],
    ]
    without = pairs[np.array([0, 1, 3, 4])]  # (3, 4) is gone, so (4, 5) goes on with nothing
    assert runs_of(without, 9).tolist() == [0, 2, 4]


def test_pairs_that_do_not_say_whose_they_are_raise():
    with pytest.raises(ValueError, match="pairs have no `row`"):
        runs_of(ItemPairs(np.array([0]), np.array([1]), np.array([0])), 4)


@pytest.mark.parametrize(("workers", "parts"), [(1, 1), (2, 1), (2, 2)])
def test_parts_hold_the_drawn_histories_once_and_are_of_one_size(workers, parts):
    pairs = next_item_pairs(*item_histories(200, seed=0))
    settings = {"pairs_per_step": 32, "history_length": 4, "gradient_accumulation": parts}
    batches = HistoryBatches(pairs, FinetuningConfig(objective="histories", **settings))
    for step in range(5):
        mine = [part for rank in range(workers) for part in batches.parts(step, workers, rank)]
        assert {(part.texts, part.size) for part in mine} == {
            (64 // workers // parts, 48 // workers // parts)
        }
        assert sum(len(part.pairs) for part in mine) == batches.predictions(step)
        for part in mine:
            assert len(part.seams) - 1 == 16 // workers // parts
            for start, stop in zip(part.seams[:-1], part.seams[1:], strict=True):
                source, target = part.pairs.source[start:stop], part.pairs.target[start:stop]
                assert 1 <= len(source) <= 3
                assert source[1:].tolist() == target[:-1].tolist()
            assert set(part.pairs.domain.tolist()) == {batches.domain(step)}


def test_padding_changes_neither_loss_nor_gradient():
    generator = torch.Generator().manual_seed(0)
    ids = torch.arange(12)
    vectors = [torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(3)]
    scale = torch.tensor(5.0).double()

    def loss_and_gradients(size):
        leaves = [v.clone().requires_grad_() for v in vectors]
        pairs = EncodedPairs(*leaves[:2], ids[:6], ids[6:], leaves[2]).padded(size)
        loss = next_item_loss(pairs, scale, symmetric=False, gather=False, count=6)
        return loss, torch.autograd.grad(loss, leaves)

    loss, gradients = loss_and_gradients(6)
    again, same = loss_and_gradients(9)
    torch.testing.assert_close(again, loss, rtol=1e-12, atol=0)
    for mine, theirs in zip(same, gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


HISTORIES = {"objective": "histories", "history_length": 4}
JOBS = {
    "2": {"zero_stage": 2},
    "3": {"zero_stage": 3},
    "2-parts": {"zero_stage": 2, "gradient_accumulation": 2, "gradient_checkpointing": True},
}


@pytest.fixture(scope="module")
def trained(tiny_llama, tmp_path_factory):
    """Curves by job, with two workers and, as "alone", with one."""
    out = tmp_path_factory.mktemp("histories")
    jobs = [{"name": name, "finetuning": HISTORIES | fields} for name, fields in JOBS.items()]
    return torchrun(2, tiny_llama, out, jobs) | {
        "alone": torchrun(1, tiny_llama, out, jobs[:1])["2"]
    }


def test_the_loss_falls_and_held_out_ranks_rise(trained):
    result, curve = trained["2"][0]["result"], losses(trained["2"])
    assert np.mean(curve[-5:]) < np.mean(curve[:5]) - 0.5
    assert result["after"]["mrr"] > result["before"]["mrr"] + 0.03


@pytest.mark.parametrize("other", ["3", "2-parts", "alone"])
def test_sharding_parts_and_workers_do_not_change_what_is_learned(trained, other):
    assert_same_losses(losses(trained["2"]), losses(trained[other]), early=4)


def test_histories_need_a_sequence_model_and_equal_shares(tiny_llama, tmp_path, item_texts):
    def run(pairs_per_step, make):
        config = ItemLLMConfig.model_validate(
            {
                "encoder": {"base": str(tiny_llama)},
                "finetuning": {**HISTORIES, "pairs_per_step": pairs_per_step},
            }
        )
        pairs = next_item_pairs(*item_histories(20, seed=0))
        return finetune(config, pairs, pairs, item_texts, tmp_path / "a", sequence_model=make)

    with pytest.raises(ValueError, match="no sequence_model was given"):
        run(8, None)
    config = FinetuningConfig(objective="histories", pairs_per_step=6, history_length=4)
    with pytest.raises(ValueError, match="so 3 histories of 4 items, which 2 workers"):
        config.check_shares(2)
