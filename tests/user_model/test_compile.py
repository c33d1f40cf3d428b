"""torch.compile of a whole block, one graph: the same outputs and gradients as without it."""

import pytest
import torch

from user_model import ops
from user_model.hydra import HydraBlock, HydraConfig

# Enough for both kinds of batch a compiler meets: the first lengths, and any others.
BATCHES = [[5, 3, 33, 12], [40, 1, 9, 17, 2, 64]]
MORE = [[7, 50, 20, 0, 31], [1, 2], [300], [0, 0, 4, 1]]


def run(call, block, lengths, backend):
    generator = torch.Generator().manual_seed(sum(lengths))
    h, dh = (torch.randn(sum(lengths), 16, generator=generator) for _ in range(2))
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0)
    h.requires_grad_()
    block.zero_grad()
    y = call(h, cu_seqlens, ops.plan(cu_seqlens), backend)
    y.backward(dh)
    named = {name: p.grad.clone() for name, p in block.named_parameters()}
    return {"y": y.detach(), "dh": h.grad, **named}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize(
    ("head", "history_mean"), [("full", False), ("lean", False), ("lean", True)]
)
@pytest.mark.parametrize(
    ("compiler", "batches"),
    [
        ("aot_eager", BATCHES),
        pytest.param("inductor", BATCHES + MORE, marks=pytest.mark.slow),
    ],
)
def test_a_block_is_one_graph_whatever_the_lengths(compiler, batches, head, history_mean, backend):
    torch.compiler.reset()
    statistics = torch._dynamo.utils.counters["stats"]
    statistics.clear()
    shape = HydraConfig(
        dim=16, layers=1, heads=3, head=head, history_mean=history_mean, dropout=0.0
    )
    block = HydraBlock(shape)
    if block.history_mean is not None:
        torch.nn.init.normal_(block.history_mean.linear.weight, std=0.3)
    compiled = torch.compile(block, fullgraph=True, dynamic=True, backend=compiler)
    for lengths in batches:
        expected = run(block, block, lengths, backend)
        got = run(compiled, block, lengths, backend)
        for name, want in expected.items():
            limit = 1e-3 if name.endswith("A_log") else 1e-5
            assert (got[name] - want).norm() <= limit * want.norm(), name
    # Another only where two sizes are equal by chance and the compiler took them for one.
    assert 1 <= statistics["unique_graphs"] < len(batches)
