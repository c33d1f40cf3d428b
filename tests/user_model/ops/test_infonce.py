"""InfoNCE with shared negatives: reference == torch, by hand, and the corners."""

import math

import pytest
import torch

from user_model.ops import BackendUnavailableError, infonce_torch, sampled_infonce
from user_model.ops.infonce import BACKENDS

ON_CPU = [name for name in BACKENDS if name != "triton"]
FAST = ON_CPU[1:]
V, WIDTH, K = 40, 8, 16


def make(T, tile, corrected):
    generator = torch.Generator().manual_seed(9)
    fixed = {
        "positive": torch.randint(0, V, (T,), generator=generator),
        "negative": torch.randint(0, V, (-(-T // tile), K), generator=generator),
    }
    if corrected:
        popularity = torch.rand(V, generator=generator, dtype=torch.float64)
        fixed["log_q"] = (popularity / popularity.sum()).log()
    leaves = {
        "query": torch.randn(T, WIDTH, generator=generator, dtype=torch.float64).float().double(),
        "table": torch.randn(V, WIDTH, generator=generator, dtype=torch.float64).float().double(),
    }
    return leaves, fixed


def loss(fixed, backend, tile, temperature=0.5):
    return lambda query, table: (
        sampled_infonce(query, table, **fixed, temperature=temperature, tile=tile, backend=backend),
    )


@pytest.mark.parametrize("corrected", [False, True], ids=["plain", "log_q"])
@pytest.mark.parametrize(
    ("T", "tile"), [(1, 128), (5, 128), (128, 32), (130, 64), (300, 128), (7, 1)]
)
def test_forms_agree(T, tile, corrected, compare, run_with_gradients):
    leaves, fixed = make(T, tile, corrected)
    expected = run_with_gradients(loss(fixed, "reference", tile), leaves, ("loss",))
    singles = {name: value.float() for name, value in leaves.items()}
    for backend in FAST:
        form = loss(fixed, backend, tile)
        compare(run_with_gradients(form, leaves, ("loss",)), expected, 1e-12)
        compare(run_with_gradients(form, singles, ("loss",)), expected, 1e-5)


def test_parts_do_not_matter(monkeypatch, compare, run_with_gradients):
    leaves, fixed = make(300, 32, True)
    at_once = run_with_gradients(loss(fixed, "torch", 32), leaves, ("loss",))
    monkeypatch.setattr(infonce_torch, "LOGITS_AT_ONCE", 3 * 32 * K)
    compare(run_with_gradients(loss(fixed, "torch", 32), leaves, ("loss",)), at_once, 1e-14)


@pytest.mark.parametrize("backend", ON_CPU)
def test_by_hand(backend):
    """Logits 2 (positive), 1 and -3; the collision with the positive is left out."""
    table = torch.tensor([[1.0, 0.0], [0.5, 0.0], [-1.5, 0.0]])
    query = torch.tensor([[2.0, 5.0]]) / 2
    arguments = {"temperature": 0.5, "backend": backend}
    positive, negative = torch.tensor([0]), torch.tensor([[1, 0, 2]])
    got = sampled_infonce(query, table, positive, negative, **arguments)
    assert float(got) == pytest.approx(math.log(1 + math.exp(-1) + math.exp(-5)), rel=1e-6)
    log_q = torch.tensor([0.5, 0.25, 0.25]).log()
    got = sampled_infonce(query, table, positive, negative, log_q=log_q, **arguments)
    assert float(got) == pytest.approx(math.log(1 + 2 * math.exp(-1) + 2 * math.exp(-5)), rel=1e-6)


@pytest.mark.parametrize("backend", ON_CPU)
def test_only_collisions_cost_nothing(backend):
    query = torch.ones(3, 2, requires_grad=True)
    table = torch.ones(2, 2, requires_grad=True)
    negative = torch.ones(1, 4, dtype=torch.int64)
    got = sampled_infonce(
        query, table, torch.ones(3, dtype=torch.int64), negative, temperature=0.1, backend=backend
    )
    got.sum().backward()
    for value in (got.detach(), query.grad, table.grad):
        assert torch.equal(value, torch.zeros_like(value))


@pytest.mark.parametrize("backend", FAST)
def test_gradient_of_a_sure_positive_keeps_its_digits(backend, compare, run_with_gradients):
    """At p = 1 - 1e-9 float32's p - 1 is 0; the sum over the negatives is not."""
    table = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    leaves = {"query": torch.tensor([[20.0, -0.7]]), "table": table}
    fixed = {"positive": torch.tensor([0]), "negative": torch.tensor([[1]])}
    wide = {name: value.double() for name, value in leaves.items()}
    expected = run_with_gradients(loss(fixed, "reference", 128, 1.0), wide, ("loss",))
    got = run_with_gradients(loss(fixed, backend, 128, 1.0), leaves, ("loss",))
    assert 0 < float(got["loss"]) < 2e-9
    compare(got, expected, 1e-5)


@pytest.mark.parametrize("backend", FAST)
def test_gradcheck(backend):
    leaves, fixed = make(10, 4, True)
    values = [value.requires_grad_() for value in leaves.values()]
    assert torch.autograd.gradcheck(loss(fixed, backend, 4), values, fast_mode=True)


@pytest.mark.parametrize("backend", FAST)
def test_frozen_table_and_low_precision(backend, compare):
    leaves, fixed = make(130, 64, False)
    query = leaves["query"].bfloat16().requires_grad_()
    got = sampled_infonce(
        query, leaves["table"].bfloat16(), **fixed, temperature=0.5, tile=64, backend=backend
    )
    got.sum().backward()
    assert (got.dtype, query.grad.dtype) == (torch.float32, torch.bfloat16)
    wide = {name: value.bfloat16().double() for name, value in leaves.items()}
    (expected,) = loss(fixed, "reference", 64)(**wide)
    compare({"loss": got}, {"loss": expected}, 1e-5)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("query", torch.zeros(5)),
        ("table", torch.zeros(V, WIDTH + 1).double()),
        ("positive", torch.zeros(5, dtype=torch.int32)),
        ("negative", torch.zeros(2, K, dtype=torch.int64)),
        ("log_q", torch.zeros(V - 1)),
    ],
)
def test_wrong_shape_or_type_names_the_argument(name, wrong):
    leaves, fixed = make(5, 128, False)
    with pytest.raises(ValueError, match=f"sampled_infonce: {name}: got .*expected"):
        sampled_infonce(**leaves | fixed | {name: wrong}, temperature=0.1)


def test_wrong_temperature_and_backend():
    leaves, fixed = make(5, 128, False)
    with pytest.raises(ValueError, match="temperature 0"):
        sampled_infonce(**leaves, **fixed, temperature=0)
    with pytest.raises(BackendUnavailableError, match="triton"):
        sampled_infonce(**leaves, **fixed, temperature=1.0, backend="triton")


def test_compiles_to_one_graph(compare, run_with_gradients):
    leaves, fixed = make(130, 64, True)
    step = loss(fixed, "torch", 64)
    expected = run_with_gradients(step, leaves, ("loss",))
    compiled = torch.compile(step, fullgraph=True)
    compare(run_with_gradients(compiled, leaves, ("loss",)), expected, 1e-12)


@pytest.mark.parametrize("frozen", [(), ("query",), ("table",)], ids=["both", "table", "query"])
def test_custom_op_keeps_its_promises(frozen):
    """Schema, fake results and autograd registration, with either leaf frozen."""
    leaves, fixed = make(130, 64, True)
    values = [value.requires_grad_(name not in frozen) for name, value in leaves.items()]
    torch.library.opcheck(
        torch.ops.hydrarec.infonce_torch.default,
        (*values, fixed["positive"], fixed["negative"], fixed["log_q"], 0.5, 64),
    )
