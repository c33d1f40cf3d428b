"""Threads of the CPU kernels: the same bits on any number of them, after a fork, and twice."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from user_model.ops import (
    causal_conv,
    conv_scan,
    gated_norm,
    grouped_linear,
    hydra_scan,
    linear,
    rms_norm,
    token_dropout,
)
from user_model.ops import threads as pool
from user_model.ops.threads import TOKENS_A_THREAD, spread

H, P, N = 2, 12, 6
K = P + 2 * N
# Users longer than a unit of work, many in a unit, users of nothing and of one event.
LENGTHS = [600, 1, 2, 0, 3, 500, 700, 1, 40, 400, 33]
NAME = "hydrarec-ops"


@pytest.fixture(autouse=True)
def _threads_are_given_back():
    before = torch.get_num_threads()
    pool._pool.cache_clear()
    yield
    torch.set_num_threads(before)
    pool._pool.cache_clear()


def inputs_of(op):
    generator = torch.Generator().manual_seed(4)
    T, S = sum(LENGTHS), len(LENGTHS)
    shapes = {
        "hydra_scan": {
            "x": (T, H, P), "dt": (T, H), "A": (H,), "B": (T, H, N), "C": (T, H, N), "D": (H,),
            "z": (T, H, P), "dt_bias": (H,), "initial_state": (S, H, N, P),
        },
        "causal_conv": {"x": (T, K), "weight": (K, 4), "bias": (K,), "initial_state": (S, K, 3)},
        "conv_scan": {
            "x": (T, H, P), "selected": (T, H, 2 * N + 1), "A": (H,), "D": (H,), "z": (T, H, P),
            "weight": (H, K, 4), "bias": (H, K), "dt_bias": (H,), "conv_state": (S, H, K, 3),
            "initial_state": (S, H, N, P),
        },
        "gated_norm": {"y": (T, H, P), "gate": (T, H, P), "weight": (H, P)},
        "grouped_linear": {"x": (T, H, P), "weight": (H, P, 2 * N + 1)},
        "linear": {"x": (T, K), "weight": (P, K), "bias": (P,)},
        "rms_norm": {"x": (T, K), "weight": (K,)},
        "token_dropout": {"x": (T, K)},
    }[op]  # fmt: skip
    made = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return made | ({"A": -made["A"].exp()} if "A" in made else {})


def call(op, leaves):
    cu_seqlens = torch.tensor([0, *LENGTHS]).cumsum(0)
    if op == "gated_norm":
        return (gated_norm(**leaves, eps=1e-6, backend="cpu"),)
    if op == "rms_norm":
        return (rms_norm(**leaves, eps=1e-6, backend="cpu"),)
    if op == "token_dropout":
        return (token_dropout(**leaves, keys=torch.arange(sum(LENGTHS)), p=0.3, backend="cpu"),)
    if op in ("grouped_linear", "linear"):
        map_ = grouped_linear if op == "grouped_linear" else linear
        return (map_(**leaves, backend="cpu"),)
    run = {"hydra_scan": hydra_scan, "causal_conv": causal_conv, "conv_scan": conv_scan}[op]
    return run(**leaves, cu_seqlens=cu_seqlens, return_final_state=True, backend="cpu")


def everything(op):
    """Outputs, states after, and the gradient of every argument."""
    leaves = {name: value.requires_grad_() for name, value in inputs_of(op).items()}
    outputs = call(op, leaves)
    generator = torch.Generator().manual_seed(5)
    cotangents = [torch.randn(y.shape, generator=generator) for y in outputs]
    return [*outputs, *torch.autograd.grad(outputs, list(leaves.values()), cotangents)]


OPS = ["hydra_scan", "causal_conv", "conv_scan", "gated_norm", "grouped_linear", "linear"]
OPS += ["rms_norm", "token_dropout"]


@pytest.mark.parametrize("op", OPS)
def test_the_number_of_threads_changes_no_bit(op):
    found = {}
    for count in (1, 2, 3, 2):
        torch.set_num_threads(count)
        again = everything(op)
        found.setdefault(count, again)
        assert all(torch.equal(a, b) for a, b in zip(again, found[1], strict=True)), count
    # One thread needs no pool; two and three each made one, and it worked.
    assert pool._pool.cache_info().currsize == 2
    assert any(thread.name.startswith(NAME) for thread in threading.enumerate())


def where_items_run(weights, n_tokens):
    """The thread that did each item, and the ranges."""
    ran, ranges = {}, []

    def run(first, last):
        ranges.append((first, last))
        for item in range(first, last):
            assert item not in ran
            ran[item] = threading.current_thread().name

    spread(run, np.asarray(weights), n_tokens=n_tokens)
    assert sorted(ran) == list(range(len(weights)))
    return ran, sorted(ranges)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "weights", [[1] * 50, [1000, 1, 1, 1], [1, 1, 1, 1000], [0, 5, 0, 0, 5], [3]]
)
def test_every_item_is_done_once_by_at_most_so_many_threads(weights, count):
    torch.set_num_threads(count)
    _, ranges = where_items_run(weights, 10 * TOKENS_A_THREAD)
    assert len(ranges) <= count


@pytest.mark.parametrize(
    ("weights", "cut"), [([3, 1, 1, 1, 2, 2, 2], 4), ([1000, 900], 1), ([900, 1000], 1)]
)
def test_shares_are_as_equal_as_can_be_and_the_caller_does_one(weights, cut):
    torch.set_num_threads(2)
    ran, ranges = where_items_run(weights, 10 * TOKENS_A_THREAD)
    assert ranges == [(0, cut), (cut, len(weights))]
    assert ran[0] == threading.current_thread().name
    assert ran[cut].startswith(NAME)


def test_few_tokens_stay_in_the_callers_thread():
    torch.set_num_threads(4)
    for n_tokens in (0, 2 * TOKENS_A_THREAD - 1):
        ran, ranges = where_items_run([1] * 8, n_tokens)
        assert ranges == [(0, 8)]
        assert set(ran.values()) == {threading.current_thread().name}
    assert len(where_items_run([1] * 8, 2 * TOKENS_A_THREAD)[1]) == 2


def test_nothing_to_do_calls_nothing():
    spread(pytest.fail, np.array([], dtype=np.int64), n_tokens=0)


def test_what_goes_wrong_in_another_thread_is_raised():
    torch.set_num_threads(2)

    def run(first, last):
        if first:
            raise OverflowError(threading.current_thread().name)

    with pytest.raises(OverflowError, match=NAME):
        spread(run, np.ones(8, dtype=np.int64), n_tokens=10 * TOKENS_A_THREAD)


FORK = """
import multiprocessing, threading
import numpy as np
import torch
from user_model.ops import hydra_scan
from user_model.ops.threads import spread

def scan():
    generator = torch.Generator().manual_seed(0)
    def random(*shape):
        return torch.randn(*shape, generator=generator)
    x = random(2100, 2, 12).requires_grad_()
    y = hydra_scan(
        x, random(2100, 2), -random(2).exp(), random(2100, 2, 6), random(2100, 2, 6), random(2),
        random(2100, 2, 12), torch.tensor([0, 700, 701, 1600, 2100]), backend="cpu",
    )
    y.sum().backward()
    return y.detach().numpy(), x.grad.numpy()

def names_of_threads():
    names = []
    def run(first, last):
        names.append(threading.current_thread().name)
    spread(run, np.ones(8, dtype=np.int64), n_tokens=10_000)
    return sorted(names)

def child(queue):
    names = names_of_threads()
    torch.set_num_threads(1)  # what torch's own loaders do: its OpenMP has no threads after a fork
    queue.put((names, *scan()))

if __name__ == "__main__":
    torch.set_num_threads(2)
    y, dx = scan()
    mine = names_of_threads()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    theirs, y_child, dx_child = queue.get()
    process.join()
    assert process.exitcode == 0, process.exitcode
    assert [name[:8] for name in theirs] == [name[:8] for name in mine] == ["MainThre", "hydrarec"]
    assert (y == y_child).all() and (dx == dx_child).all()
    print("same")
"""


def test_after_a_fork_the_child_makes_threads_of_its_own():
    """In a process of its own: the parent has threads when it forks, and the child has not."""
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "same\n"
