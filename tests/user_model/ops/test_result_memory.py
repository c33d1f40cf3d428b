"""The memory of results: it comes back by itself, is taken again, and is bounded."""

import gc
import threading

import pytest
import torch
from torch import Tensor

from user_model.ops import hydra_scan
from user_model.ops.result_memory import SMALLEST, ResultMemory, results

LIKE = torch.empty(0)
ROWS = SMALLEST // 4  # float32 elements of the smallest result that is kept


def test_memory_of_a_result_that_is_gone_is_taken_again() -> None:
    memory = ResultMemory()
    first = memory.empty((ROWS,), LIKE)
    place = first.data_ptr()
    second = memory.empty((ROWS,), LIKE)
    assert second.data_ptr() != place
    # The system may map new memory where old was: what was written tells them apart.
    first.fill_(7)
    del first
    again = memory.empty((ROWS,), LIKE)
    assert again.data_ptr() == place
    assert bool((again == 7).all())


def test_a_view_keeps_its_memory() -> None:
    memory = ResultMemory()
    view = memory.empty((2, ROWS), LIKE)[1]
    view.fill_(7)
    memory.empty((2, ROWS), LIKE).fill_(1)
    assert memory.empty((2, ROWS), LIKE).data_ptr() != view.data_ptr() - ROWS * 4
    assert bool((view == 7).all())


def test_a_graph_keeps_its_memory_until_it_is_gone() -> None:
    memory = ResultMemory()
    x = memory.empty((ROWS,), LIKE).fill_(3).requires_grad_()
    loss = (x * x).sum()
    place = x.data_ptr()
    other = memory.empty((ROWS,), LIKE).fill_(0)
    (gradient,) = torch.autograd.grad(loss, [x])
    assert bool((gradient == 6).all())
    del x, loss, gradient
    gc.collect()
    assert other.data_ptr() != place
    again = memory.empty((ROWS,), LIKE)
    assert again.data_ptr() == place
    assert bool((again == 3).all())


@pytest.mark.parametrize("shape", [(ROWS, 3), (4, ROWS), (1, 2, ROWS)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_type_and_alignment(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    made = ResultMemory().empty(shape, torch.empty(0, dtype=dtype))
    expected = torch.empty(shape, dtype=dtype)
    assert (made.shape, made.stride(), made.dtype) == (expected.shape, expected.stride(), dtype)
    assert made.data_ptr() % 64 == 0


def test_like_keeps_the_strides_of_a_dense_tensor() -> None:
    turned = torch.empty(ROWS, 3).t()
    made = ResultMemory().empty_like(turned)
    assert made.stride() == torch.empty_like(turned).stride() == (1, 3)
    every_second = torch.empty(ROWS, 6)[:, ::2]
    assert (
        ResultMemory().empty_like(every_second).stride() == torch.empty_like(every_second).stride()
    )


def test_small_results_are_the_allocators() -> None:
    memory = ResultMemory()
    memory.empty((ROWS - 1,), LIKE)
    memory.empty((0,), LIKE)
    assert memory.idle_bytes == 0


def test_idle_memory_never_exceeds_what_was_needed_at_one_time() -> None:
    memory = ResultMemory()
    largest = 0
    for rows in (1, 2, 3, 5, 8, 13, 2, 1, 13, 4):
        held = [memory.empty((rows * ROWS,), LIKE) for _ in range(3)]
        largest = max(largest, 3 * -(-rows * SMALLEST // (1 << 21)) * (1 << 21))
        del held
        assert memory.idle_bytes <= largest
    memory.release()
    assert memory.idle_bytes == 0


def test_a_much_larger_buffer_is_not_taken_for_a_small_result() -> None:
    memory = ResultMemory()
    large = memory.empty((64 * ROWS,), LIKE)
    place = large.data_ptr()
    del large
    assert memory.empty((2 * ROWS,), LIKE).data_ptr() != place


def test_threads_never_share_a_buffer() -> None:
    memory, wrong = ResultMemory(), []

    def work(number: int) -> None:
        for _ in range(200):
            mine = memory.empty((ROWS,), LIKE)
            mine.fill_(number)
            if not bool((mine == number).all()):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _scan() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    T, H, P = 4096, 4, 32

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    given = [normal(T, H, P), normal(T, H), normal(H), *(normal(T, H, P) for _ in "BC"), normal(H)]
    given[2] = (-given[2].detach().exp()).requires_grad_()
    y = hydra_scan(*given, None, torch.tensor([0, 1000, T]), backend="cpu")
    return (y, *torch.autograd.grad(y.square().sum(), given))


def test_a_result_that_is_held_survives_the_calls_after_it() -> None:
    results.release()
    first = _scan()
    copies = [tensor.detach().clone() for tensor in first]
    for _ in range(3):
        _scan()
    for tensor, copy in zip(first, copies, strict=True):
        assert torch.equal(tensor, copy)
