"""Which backend runs: chosen by device, or as named, or an error that says what to do instead."""

import subprocess
import sys

import pytest
import torch

from user_model import Hydra, HydraConfig
from user_model.ops import (
    BackendUnavailableError,
    backends,
    causal_conv,
    conv_scan,
    gated_norm,
    grouped_linear,
    hydra_scan,
    linear,
    rms_norm,
    rope_product,
    sampled_infonce,
    swiglu,
    token_dropout,
)
from user_model.ops.backends import KNOWN, resolve

CPU, GPU, META = (torch.device(name) for name in ("cpu", "cuda", "meta"))
H, P, N, K, T = 2, 16, 16, 48, 4


def ops_on(backend):
    """Each public op with small inputs on the CPU."""
    cu_seqlens = torch.tensor([0, 3, 4])
    x, selected = torch.randn(T, H, P), torch.randn(T, H, 2 * N + 1)
    B, C, dt = selected.split([N, N, 1], -1)
    A, D, weight, bias = -torch.ones(H), torch.ones(H), torch.randn(H, K, 4), torch.zeros(H, K)
    return {
        "hydra_scan": lambda: hydra_scan(
            x, dt[..., 0], A, B, C, D, x, cu_seqlens, backend=backend
        ),
        "causal_conv": lambda: causal_conv(
            torch.randn(T, K), weight[0], bias[0], cu_seqlens, backend=backend
        ),
        "conv_scan": lambda: conv_scan(
            x, selected, A, D, x, weight, bias, cu_seqlens, backend=backend
        ),
        "gated_norm": lambda: gated_norm(x, x, torch.ones(H, P), 1e-6, backend=backend),
        "rope_product": lambda: rope_product(x, x, cu_seqlens, backend=backend),
        "swiglu": lambda: swiglu(x.flatten(1), backend=backend),
        "grouped_linear": lambda: grouped_linear(x, torch.randn(H, P, N), backend=backend),
        "rms_norm": lambda: rms_norm(x.flatten(1), torch.ones(H * P), 1e-6, backend=backend),
        "token_dropout": lambda: token_dropout(
            x.flatten(1), torch.arange(T), 0.5, backend=backend
        ),
        "linear": lambda: linear(x.flatten(1), torch.randn(N, H * P), backend=backend),
        "sampled_infonce": lambda: sampled_infonce(
            torch.randn(T, 8), torch.randn(9, 8), torch.zeros(T, dtype=torch.int64),
            torch.ones(1, 3, dtype=torch.int64), temperature=1.0, backend=backend,
        ),
    }  # fmt: skip


OPS = list(ops_on("auto"))


@pytest.mark.parametrize(
    ("available", "device", "taken"),
    [
        (("reference", "torch", "cpu", "triton"), CPU, "cpu"),
        (("reference", "torch", "triton"), CPU, "torch"),
        (("torch", "cpu"), GPU, "torch"),
        (("torch", "cpu", "triton"), META, "torch"),
    ],
)
def test_auto_takes_the_fastest_of_the_op_for_the_device(available, device, taken):
    assert resolve("op", "auto", available, device) == taken


def test_auto_takes_triton_on_a_gpu_where_it_is_installed():
    expected = "triton" if backends.triton_found() else "torch"
    assert resolve("op", "auto", ("torch", "cpu", "triton"), GPU) == expected


@pytest.mark.parametrize("name", OPS)
def test_auto_runs_every_op_on_a_cpu(name):
    assert ops_on("auto")[name]() is not None


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_a_name_is_taken_as_it_is(backend):
    assert resolve("op", backend, ("torch", "cpu"), CPU) == backend


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("backend", ["abacus", "", "CPU"])
def test_an_unknown_name_lists_those_there_are(backend, name):
    with pytest.raises(ValueError, match=rf"{name}: got backend '{backend}', .* 'auto', .*'torch'"):
        ops_on(backend)[name]()


def test_a_known_name_that_the_op_has_not_lists_those_it_has():
    for backend in set(KNOWN) - {"torch", "cpu"}:
        with pytest.raises(
            BackendUnavailableError,
            match=rf"op: backend '{backend}' is not available for it; use .*'auto', 'torch', 'cpu'",
        ):
            resolve("op", backend, ("torch", "cpu"), CPU)


def test_an_unavailable_backend_is_a_value_error():
    assert issubclass(BackendUnavailableError, ValueError)


@pytest.mark.parametrize("device", [GPU, META])
def test_cpu_takes_tensors_on_a_cpu_alone(device):
    with pytest.raises(BackendUnavailableError, match=rf"'cpu' got tensors on {device}.* 'auto'"):
        resolve("op", "cpu", ("torch", "cpu"), device)


@pytest.mark.parametrize("name", ["hydra_scan", "causal_conv", "conv_scan", "sampled_infonce"])
def test_triton_on_a_cpu_says_what_to_do(name):
    """In the interpreter it runs there: tests/interpreter."""
    with pytest.raises(
        BackendUnavailableError, match=r"'triton' needs .* GPU, got cpu; use another"
    ):
        ops_on("triton")[name]()


def test_a_model_of_a_backend_that_cannot_run_here_raises_the_same():
    model = Hydra(HydraConfig(dim=64, backend="triton"))
    with pytest.raises(BackendUnavailableError, match="TRITON_INTERPRET=1"):
        model(torch.randn(3, 64), torch.tensor([0, 3]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_five_taps_are_too_many_for_the_compiled_convolution(dtype):
    x, weight, cu_seqlens = torch.randn(4, 3, dtype=dtype), torch.randn(3, 5, dtype=dtype), [0, 4]
    with pytest.raises(BackendUnavailableError, match=r"'cpu' got 5 taps, .* 4; use .*'torch'"):
        causal_conv(x, weight, None, torch.tensor(cu_seqlens), backend="cpu")
    assert causal_conv(x, weight, None, torch.tensor(cu_seqlens), backend="torch").shape == (4, 3)


def test_auto_takes_a_convolution_that_can_do_what_is_asked():
    x, weight, cu_seqlens = torch.randn(4, 3), torch.randn(3, 5), torch.tensor([0, 4])
    got = causal_conv(x, weight, None, cu_seqlens)
    assert torch.equal(got, causal_conv(x, weight, None, cu_seqlens, backend="torch"))


def test_nothing_heavy_is_imported_before_an_op_runs():
    program = """
import sys
import user_model
import user_model.ops
print(sorted({"numba", "triton", "mamba_ssm", "llvmlite"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "[]\n"
