"""Tests of Triton kernels in Triton's interpreter: a pytest process of their own.

    TRITON_INTERPRET=1 python -m pytest tests/interpreter

Triton reads the variable when a kernel is decorated, so without it there is nothing to collect.
"""

import importlib.util
import math
import os
from pathlib import Path

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton")
collect_ignore_glob = [] if INTERPRETED else ["test_*.py"]

# What the op tests share, from their own folder: tests/ has no packages to import it from.
_PATH = Path(__file__).resolve().parents[1] / "user_model" / "ops" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("ops_conftest", _PATH)
_SHARED = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_SHARED)
compare, run_with_gradients, bounds = _SHARED.compare, _SHARED.run_with_gradients, _SHARED.bounds
_one_thread = _SHARED._one_thread


@pytest.fixture(scope="session", autouse=True)
def _patch_the_language_once():
    """Spare 40 ms a call: the interpreter patches triton.language anew for each device function.

    The launch of the kernel that calls it has patched it already; only Triton's own library sees it
    by another name, which the first call of one of its functions patches for good.
    """
    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction

    with_patching = InterpretedFunction.__call__

    def call(self, *args, **kwargs):
        if tl.core.is_builtin(tl.core.dot):
            return with_patching(self, *args, **kwargs)
        return self.rewrite()(*args, **kwargs)

    patch = pytest.MonkeyPatch()
    patch.setattr(InterpretedFunction, "__call__", call)
    yield
    patch.undo()


@pytest.fixture
def memory_holds_nan(monkeypatch):
    """Fill new memory with NaN, so that what a kernel forgets to write shows."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def guarded_memory(monkeypatch):
    """Put a margin around all memory that an op allocates; what was written there shows."""
    margin, mark, made = 512, 77, []

    def empty(*shape, dtype, device=None):
        n = math.prod(shape)
        memory = torch.full((n + 2 * margin,), mark, dtype=dtype, device=device)
        made.append(memory)
        return memory[margin : margin + n].view(shape)

    def flat(shape):
        return shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape

    def new_empty(self, *shape, dtype=None, device=None):
        return empty(*flat(shape), dtype=dtype or self.dtype, device=device)

    monkeypatch.setattr(torch, "empty", lambda *shape, **rest: empty(*flat(shape), **rest))
    monkeypatch.setattr(torch, "empty_like", lambda like: empty(*like.shape, dtype=like.dtype))
    monkeypatch.setattr(torch.Tensor, "new_empty", new_empty)
    yield made
    monkeypatch.undo()
    assert made, "the op allocated nothing that was seen"
    for memory in made:
        assert bool((memory[:margin] == mark).all())
        assert bool((memory[-margin:] == mark).all())
