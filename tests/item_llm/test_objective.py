import math
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from item_llm.objective import CachedTexts, EncodedPairs, next_item_loss

# Two workers with three pairs each; texts 1 and 4 repeat, on one worker and across both.
SOURCE_IDS = [0, 1, 2, 4, 8, 9]
TARGET_IDS = [1, 3, 4, 5, 1, 4]
TABLE = F.normalize(torch.randn(10, 5, generator=torch.Generator().manual_seed(0)).double(), dim=1)


# Further candidates: two of them are texts of pairs, and masked for those.
CACHED_IDS = [1, 6, 8]
CACHED = F.normalize(torch.randn(3, 5, generator=torch.Generator().manual_seed(1)).double(), dim=1)


def by_the_definition(scale, symmetric, cached=()):
    """Loops and probabilities, no masks: candidates are a set of texts without the pair's own."""
    apart = TABLE - TABLE[SOURCE_IDS + TARGET_IDS].mean(0)
    table = apart / apart.norm(dim=1, keepdim=True)

    def one(query, positive):
        others = {i for i in SOURCE_IDS + TARGET_IDS if i not in (query, positive)}
        copies = [i for i in SOURCE_IDS + TARGET_IDS if i in others]
        own = math.exp(scale * table[query] @ table[positive])
        others = [table[i] for i in copies]
        others += [CACHED[at] for at, i in enumerate(cached) if i not in (query, positive)]
        return -math.log(own / (own + sum(math.exp(scale * table[query] @ o) for o in others)))

    rows = list(zip(SOURCE_IDS, TARGET_IDS, strict=True))
    forward = sum(one(s, t) for s, t in rows) / len(rows)
    backward = sum(one(t, s) for s, t in rows) / len(rows)
    return (forward + backward) / 2 if symmetric else forward


ALL = slice(None)


def encoded(table, rows=ALL):
    source, target = torch.tensor(SOURCE_IDS[rows]), torch.tensor(TARGET_IDS[rows])
    return EncodedPairs(table[source], table[target], source, target)


@pytest.mark.parametrize("symmetric", [False, True])
def test_loss_is_the_definition(symmetric):
    loss = next_item_loss(
        encoded(TABLE), torch.tensor(7.0).double(), symmetric=symmetric, gather=True
    )
    assert loss.item() == pytest.approx(by_the_definition(7.0, symmetric), rel=1e-12)


@pytest.mark.parametrize("symmetric", [False, True])
def test_cached_texts_are_further_negatives(symmetric):
    cached = CachedTexts(CACHED, torch.tensor(CACHED_IDS))
    scale = torch.tensor(7.0).double()
    loss = next_item_loss(encoded(TABLE), scale, symmetric=symmetric, gather=True, cached=cached)
    assert loss.item() == pytest.approx(by_the_definition(7.0, symmetric, CACHED_IDS), rel=1e-12)
    assert loss.item() > by_the_definition(7.0, symmetric) + 1e-3


def test_what_all_vectors_share_does_not_count():
    nearly_equal = TABLE * 1e-3 + TABLE[7]
    cosines = F.normalize(nearly_equal, dim=1)
    assert (cosines @ cosines.T).min() > 0.999
    losses = [
        next_item_loss(encoded(t), torch.tensor(7.0).double(), symmetric=True, gather=True).item()
        for t in (TABLE, nearly_equal)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def test_gradients_are_those_of_finite_differences():
    table = TABLE.clone().requires_grad_(True)
    scale = torch.tensor(3.0).double().requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda t, s: next_item_loss(encoded(t), s, symmetric=True, gather=True), (table, scale)
    )


def test_a_collapsed_encoder_pays_the_log_of_the_number_of_candidates():
    ids = torch.arange(8)
    same = torch.ones(8, 4) / 2
    pairs = EncodedPairs(same, same, ids, ids + 8)
    loss = next_item_loss(pairs, torch.tensor(20.0), symmetric=True, gather=False)
    assert loss.item() == pytest.approx(math.log(15), rel=1e-6)  # 16 texts, the query masked


WORKER = """
import os, sys
import torch, torch.distributed as dist
sys.path.insert(0, {folder!r})
from test_objective import TABLE, encoded
from item_llm.objective import next_item_loss

dist.init_process_group("gloo", init_method="file://{store}", rank=int(sys.argv[1]), world_size=2)
table = TABLE.clone().requires_grad_(True)
scale = torch.tensor(7.0).double().requires_grad_(True)
mine = slice(0, 3) if dist.get_rank() == 0 else slice(3, 6)
loss = next_item_loss(encoded(table, mine), scale, symmetric=True, gather=True)
loss.backward()
for tensor in (table.grad, scale.grad, loss := loss.detach()):
    dist.all_reduce(tensor)
    tensor /= 2  # as data parallelism averages
if dist.get_rank() == 0:
    torch.save([loss, table.grad, scale.grad], {out!r})
# Else a process may leave while gloo's threads still run, and is aborted.
dist.barrier()
dist.destroy_process_group()
"""


def test_two_workers_have_the_loss_and_the_gradients_of_one(tmp_path):
    from pathlib import Path

    out = str(tmp_path / "out.pt")
    code = WORKER.format(folder=str(Path(__file__).parent), store=tmp_path / "store", out=out)
    both = [subprocess.Popen([sys.executable, "-c", code, str(rank)]) for rank in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    table = TABLE.clone().requires_grad_(True)
    scale = torch.tensor(7.0).double().requires_grad_(True)
    loss = next_item_loss(encoded(table), scale, symmetric=True, gather=True)
    loss.backward()
    for got, expected in zip(
        torch.load(out, weights_only=True), [loss.detach(), table.grad, scale.grad], strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
