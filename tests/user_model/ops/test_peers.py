"""The scan against other people's: mamba-ssm's references and kernels, transformers' Mamba-2.

Sequences of equal length and moderate decays, where the peers are right: on a CPU they know no
packed input, and ssd_chunk_scan_combined_ref's gradients overflow under strong decay. `make peers`
installs mamba-ssm; transformers is always there.
"""

import importlib.util
import math
import os
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from benchmarks.peers import PYTHON, ROOT, PeerWorker, forward_backward, transformers_scan
from user_model.ops import BackendUnavailableError, hydra_scan, plan
from user_model.ops.scan import BACKENDS
from user_model.ops.scan_mamba_ssm import scan_mamba_ssm

ON_CPU = [name for name in BACKENDS if name in ("reference", "torch", "cpu")]
needs_peers = pytest.mark.skipif(not PYTHON.exists(), reason="needs make peers")
SHAPES = {"one chunk": (5, 64), "padded": (3, 50), "chunks and a rest": (2, 150), "short": (7, 3)}


def make(S, L, H=2, P=16, N=32):
    """Inputs of a scan, float32 numbers in float64; dt is after softplus."""
    generator = torch.Generator().manual_seed(3)
    T = S * L

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = {
        "x": random(T, H, P),
        "dt": F.softplus(random(T, H) - 2),
        "A": -1 - torch.rand(H, generator=generator, dtype=torch.float64),
        "B": random(T, H, N) / math.sqrt(N),
        "C": random(T, H, N),
        "D": random(H),
    }
    dy = random(T, H, P)
    return {name: value.float().double() for name, value in inputs.items()}, dy.float().double()


def ours(backend, S, L):
    """The scan as a function of dt after softplus, as the peers take it."""
    cu_seqlens = torch.arange(S + 1) * L

    def scan(x, dt, A, B, C, D):
        return hydra_scan(x, dt.expm1().log(), A, B, C, D, None, cu_seqlens, backend=backend)

    return scan


def singles(inputs):
    return {name: value.float() for name, value in inputs.items()}


@pytest.fixture(scope="module")
def peers():
    with PeerWorker(threads=1) as worker:
        yield worker


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize(("S", "L"), SHAPES.values(), ids=SHAPES)
def test_equals_transformers(S, L, backend, compare):
    """Theirs is float32 inside, so it is the side that is held to the tolerance."""
    inputs, dy = make(S, L)
    theirs = forward_backward(
        lambda **leaves: transformers_scan(**leaves, length=L), singles(inputs), dy.float()
    )
    compare(theirs, forward_backward(ours(backend, S, L), inputs, dy), 1e-5)


@needs_peers
@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize(("S", "L"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("peer", ["mamba_chunk", "mamba_minimal"])
def test_equals_mamba_ssm_in_float64(peer, S, L, backend, peers, compare):
    inputs, dy = make(S, L)
    peers.hold(inputs, dy, length=L)
    # ssd_chunk_scan_combined_ref takes dt to float32: its gradient comes back with those digits.
    exceptions = {"ddt": 1e-6} if peer == "mamba_chunk" else {}
    compare(forward_backward(ours(backend, S, L), inputs, dy), peers.run(peer), 1e-12, **exceptions)


@needs_peers
@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("peer", ["mamba_chunk", "mamba_minimal", "mamba_selective"])
def test_equals_mamba_ssm_in_float32(peer, backend, peers, compare):
    S, L = SHAPES["chunks and a rest"]
    inputs, dy = make(S, L)
    peers.hold(singles(inputs), dy.float(), length=L)
    theirs = peers.run(peer)
    compare(forward_backward(ours(backend, S, L), singles(inputs), dy.float()), theirs, 1e-5)


CASES = {
    "packed": ([1, 2, 3, 40, 31], {}),
    "ended": ([0, 3, 0, 70, 0, 1, 0], {"final": True, "gradients": False}),
    "alone": ([70], {"final": True, "initial": True}),
}


def packed_case(lengths, *, final=False, initial=False, gradients=True):
    inputs, _ = make(1, sum(lengths), N=16)
    generator = torch.Generator().manual_seed(4)
    (T, H, P), S, N = inputs["x"].shape, len(lengths), 16

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    inputs = singles(inputs) | {"z": random(T, H, P), "dt_bias": 0.1 * random(H)}
    inputs["dt"] = inputs["dt"].expm1().log()
    if initial:
        inputs["initial_state"] = random(S, H, N, P)
    cotangents = {"y": random(T, H, P)} if gradients else {}
    if gradients and final:
        cotangents["final"] = random(S, H, N, P)
    fixed = {
        "cu_seqlens": torch.tensor([0, *lengths]).cumsum(0),
        "position_offset": torch.arange(S),
    }
    return inputs, cotangents, fixed


def expected_results(inputs, cotangents, fixed, final):
    leaves = {name: value.double().requires_grad_() for name, value in inputs.items()}
    y, state = hydra_scan(**leaves, **fixed, return_final_state=True, backend="reference")
    outputs = {"y": y} | ({"final": state} if final else {})
    found = {name: value.detach() for name, value in outputs.items()}
    if cotangents:
        gradients = torch.autograd.grad(
            [outputs[name] for name in cotangents],
            list(leaves.values()),
            [value.double() for value in cotangents.values()],
        )
        found |= {f"d{name}": value for name, value in zip(leaves, gradients, strict=True)}
    return found


@needs_peers
@pytest.mark.slow
def test_mamba_ssm_backend_in_the_interpreter(tmp_path, compare):
    """Its own kernels, on packed input: seams, empty sequences, final states, every gradient."""
    for name, (lengths, options) in CASES.items():
        inputs, cotangents, fixed = packed_case(lengths, **options)
        asked = {f"cotangent_{key}": value for key, value in cotangents.items()}
        asked["wants_final"] = torch.tensor("final" in options)
        save_file(inputs | fixed | asked, tmp_path / f"{name}.safetensors")
    program = Path(__file__).with_name("peer_interpreter.py")
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([PYTHON, program, tmp_path], env=environment, check=True)
    for name, (lengths, options) in CASES.items():
        inputs, cotangents, fixed = packed_case(lengths, **options)
        expected = expected_results(inputs, cotangents, fixed, "final" in options)
        compare(load_file(tmp_path / f"{name}.results"), expected, 1e-5)


def call_backend(dtype=torch.float32, lengths=(3, 4), initial=False, final=False):
    inputs, _ = make(1, sum(lengths))
    x, dt, A, B, C, D = (value.to(dtype) for value in inputs.values())
    S, H, N, P = len(lengths), x.shape[1], B.shape[2], x.shape[2]
    scan_mamba_ssm(
        x.requires_grad_(), dt, A, B, C, D, None, plan(torch.tensor([0, *lengths]).cumsum(0)),
        dt_bias_H=None, initial_SHNP=x.new_zeros(S, H, N, P) if initial else None,
        position_offset_S=None, return_final_state=final,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        ({"dtype": torch.float64}, "cannot do float64 input; use another"),
        ({"lengths": ()}, "cannot do a batch without tokens; use another"),
        ({"initial": True}, "cannot do initial states of packed sequences; use another"),
        ({"final": True}, "cannot do final states of packed sequences with gradients"),
    ],
    ids=["float64", "empty", "initial", "final"],
)
def test_mamba_ssm_backend_refuses_what_it_cannot_do(asked, refused):
    with pytest.raises(BackendUnavailableError, match=refused):
        call_backend(**asked)


@pytest.mark.skipif(importlib.util.find_spec("mamba_ssm") is not None, reason="mamba-ssm is here")
def test_mamba_ssm_backend_says_how_to_install_it():
    with pytest.raises(BackendUnavailableError, match=r"no module mamba_ssm here.*make peers"):
        call_backend()


@needs_peers
def test_mamba_ssm_backend_asks_for_a_gpu():
    program = (
        "import torch\n"
        "from user_model.ops import plan, scan_mamba_ssm\n"
        "x = torch.zeros(2, 1, 16)\n"
        "one = torch.ones(1)\n"
        "scan_mamba_ssm.scan_mamba_ssm(\n"
        "    x, x[..., 0], -one, x, x, one, None, plan(torch.tensor([0, 2])), dt_bias_H=None,\n"
        "    initial_SHNP=None, position_offset_S=None, return_final_state=False)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [PYTHON, "-c", program], env=environment | {"PYTHONPATH": str(ROOT)}, text=True,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert "BackendUnavailableError" in done.stderr
    assert "got tensors on cpu, expected a GPU or Triton's interpreter" in done.stderr
