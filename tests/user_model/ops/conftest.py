"""What all op tests share: made-up inputs, gradients of everything, and one comparison."""

from collections.abc import Callable, Iterable, Sequence

import pytest
import torch
from torch import Tensor

Named = dict[str, Tensor]


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_same(got: Named, expected: Named, tolerance: float, **exceptions: float) -> None:
    """Compare by RMS ratio, |got - expected| / |expected|; name every tensor that failed."""
    assert got.keys() == expected.keys()
    failed = []
    for name, want in expected.items():
        value = got[name]
        assert value.shape == want.shape, f"{name}: shape {value.shape}, expected {want.shape}"
        error = (value.double() - want.double()).norm()
        scale = want.double().norm()
        limit = exceptions.get(name, tolerance)
        if not error <= limit * scale:  # NaN fails too
            failed.append(f"{name}: RMS ratio {float(error / scale):.1e} above {limit:.0e}")
    assert not failed, "; ".join(failed)


@pytest.fixture(scope="session")
def compare() -> Callable[..., None]:
    return assert_same


@pytest.fixture(scope="session")
def run_with_gradients() -> Callable[..., Named]:
    """Call an op, pull a fixed random cotangent through its outputs: outputs and all gradients."""

    def run(op: Callable[..., Iterable[Tensor]], inputs: Named, names: Sequence[str]) -> Named:
        leaves = {name: value.detach().clone().requires_grad_() for name, value in inputs.items()}
        outputs = dict(zip(names, op(**leaves), strict=True))
        generator = torch.Generator().manual_seed(11)
        cotangents = [
            torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype)
            for y in outputs.values()
        ]
        gradients = torch.autograd.grad(list(outputs.values()), list(leaves.values()), cotangents)
        named = {f"d{name}": value for name, value in zip(leaves, gradients, strict=True)}
        return {name: value.detach() for name, value in outputs.items()} | named

    return run


def wide_view(value):
    """The same numbers between others, from an odd element on: last stride 1."""
    wide = torch.cat((value[..., :1], value, value[..., :2], value[..., :2]), -1)
    return wide[..., 1 : 1 + value.shape[-1]]


def gaps(value):
    """The same numbers, every second element."""
    return torch.stack((value, value), -1).flatten(-2)[..., ::2]


def transposed(value):
    """The same numbers, tokens next to each other."""
    return value.transpose(0, -1).contiguous().transpose(0, -1)


@pytest.fixture(params=[wide_view, gaps, transposed])
def same_on_views(request, run_with_gradients) -> Callable[..., None]:
    """Hold an op of one result to the same on views of its inputs, with a view as its gradient."""
    view = request.param

    def check(op: Callable[..., tuple[Tensor]], inputs: Named) -> None:
        def on_views(**leaves: Tensor) -> tuple[Tensor]:
            (out,) = op(**{name: view(value) for name, value in leaves.items()})
            return (view(out),)  # so that the output's gradient is a view as well

        viewed = run_with_gradients(on_views, inputs, ["out"])
        expected = run_with_gradients(lambda **leaves: (view(op(**leaves)[0]),), inputs, ["out"])
        assert_same(viewed, expected, 1e-15)

    return check


@pytest.fixture(scope="session")
def bounds() -> Callable[[Sequence[int]], Tensor]:
    """Turn lengths into cu_seqlens."""
    return lambda lengths: torch.tensor([0, *lengths]).cumsum(0)
