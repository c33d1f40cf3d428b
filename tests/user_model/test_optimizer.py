import pytest
import torch
from torch import nn

from user_model import Hydra, HydraConfig, TrainingConfig
from user_model.optimizer import DenseAdamW, RowAdamW, learning_rate


def test_rows_touched_in_every_step_move_as_under_adamw():
    start = torch.randn(6, 4, dtype=torch.float64)
    table, dense = nn.Parameter(start.clone()), nn.Parameter(start[:3].clone())
    rows = RowAdamW(table, betas=(0.9, 0.98), weight_decay=0.1)
    adamw = torch.optim.AdamW([dense], lr=0.01, betas=(0.9, 0.98), weight_decay=0.1)
    for _ in range(5):
        gradient = torch.randn(3, 4, dtype=torch.float64)
        dense.grad = gradient.clone()
        adamw.step()
        rows.step(torch.arange(3), gradient, 0.01)
    torch.testing.assert_close(table[:3], dense, rtol=1e-12, atol=1e-12)
    assert torch.equal(table[3:], start[3:])


def test_a_row_touched_for_the_first_time_late_takes_a_full_first_step():
    table = nn.Parameter(torch.zeros(2, 3))
    rows = RowAdamW(table, betas=(0.9, 0.98), weight_decay=0.0)
    for _ in range(20):
        rows.step(torch.tensor([0]), torch.ones(1, 3), 0.01)
    rows.step(torch.tensor([1]), torch.ones(1, 3), 0.01)
    torch.testing.assert_close(table[1].data, torch.full((3,), -0.01), rtol=1e-5, atol=0)


def test_dense_weights_move_as_under_torchs_adamw():
    ours, theirs = (
        [nn.Parameter(torch.ones(3, 2).double()), nn.Parameter(torch.ones(3).double())]
        for _ in range(2)
    )
    optimizer = DenseAdamW(list(zip("ab", ours, strict=True)), betas=(0.9, 0.98), weight_decay=0.1)
    groups = [
        {"params": theirs[:1], "weight_decay": 0.1},
        {"params": theirs[1:], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.98))
    for _ in range(5):
        gradients = [torch.randn_like(p) for p in ours]
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient
        adamw.step()
        optimizer.step(gradients, 0.01)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_norms_and_the_scans_own_parameters_do_not_decay():
    hydra = Hydra(HydraConfig(dim=16, layers=1))
    named = list(hydra.named_parameters())
    optimizer = DenseAdamW(named, betas=(0.9, 0.98), weight_decay=0.1)
    decayed = {id(p) for p in optimizer.decayed}
    names = {n for n, p in named if id(p) not in decayed}
    assert {n.rpartition(".")[2] for n in names} == {
        "A_log", "D", "dt_bias", "norm_weight", "bias", "weight",
    }  # fmt: skip
    assert all("norm" in n for n in names if n.endswith("weight"))


def test_the_rate_warms_up_and_falls_along_a_cosine():
    config = TrainingConfig(lr=1.0, warmup_steps=10, min_lr_share=0.2)
    assert learning_rate(config, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(config, 9, 0.0) == pytest.approx(1.0)
    assert learning_rate(config, 100, 0.5) == pytest.approx(0.6)
    assert learning_rate(config, 100, 1.0) == pytest.approx(0.2)
    assert learning_rate(TrainingConfig(lr=1.0, warmup_steps=0), 0, 0.0) == 1.0


def test_the_rate_falls_along_a_line_or_stays():
    line = TrainingConfig(schedule="linear", lr=1.0, warmup_steps=10, min_lr_share=0.2)
    rates = [learning_rate(line, 100, share) for share in (0.0, 0.25, 0.5, 1.0)]
    assert rates == pytest.approx([1.0, 0.8, 0.6, 0.2])
    level = TrainingConfig(schedule="constant", lr=1.0, warmup_steps=10, min_lr_share=0.2)
    assert [learning_rate(level, 100, share) for share in (0.0, 0.5, 1.0)] == [1.0] * 3
    for config in (line, level):
        assert learning_rate(config, 4, 0.0) == pytest.approx(0.5)
