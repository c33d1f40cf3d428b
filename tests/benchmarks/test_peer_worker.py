"""The worker's messages, and a real worker in this environment: transformers is here, too."""

import io
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.peer_worker import receive, send, serve
from benchmarks.peers import PeerWorker, forward_backward, transformers_scan

HERE = Path(sys.executable)
S, L, H, P, N = 2, 5, 1, 4, 4


def make():
    generator = torch.Generator().manual_seed(0)
    T = S * L
    shapes = {"x": (T, H, P), "dt": (T, H), "A": (H,), "B": (T, H, N), "C": (T, H, N), "D": (H,)}
    inputs = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    inputs["A"].neg_()
    return inputs, torch.randn(T, H, P, generator=generator)


@pytest.fixture(scope="module")
def worker():
    with PeerWorker(threads=1, python=HERE) as started:
        yield started


def test_messages_come_back_as_sent():
    stream = io.BytesIO()
    tensors = {"a": torch.arange(6).view(2, 3).T, "empty": torch.zeros(0, 2, dtype=torch.float64)}
    send(stream, {"do": "hold", "length": 3}, tensors)
    send(stream, {"ok": True})
    stream.seek(0)
    header, got = receive(stream)
    assert header == {"do": "hold", "length": 3}
    assert got.keys() == tensors.keys()
    assert all(torch.equal(got[name], tensors[name]) for name in tensors)
    assert receive(stream) == ({"ok": True}, {})
    with pytest.raises(EOFError):
        receive(stream)


def test_a_message_cut_short_is_not_taken():
    stream = io.BytesIO()
    send(stream, {"ok": True}, {"a": torch.ones(3)})
    with pytest.raises(EOFError, match="1 bytes early"):
        receive(io.BytesIO(stream.getvalue()[:-1]))


def test_the_worker_answers_mistakes_and_goes_on():
    requests, answers = io.BytesIO(), io.BytesIO()
    send(requests, {"do": "run", "peer": "transformers"})  # nothing held yet
    send(requests, {"do": "hold", "length": L}, {"x": torch.ones(1)})
    requests.seek(0)
    serve(requests, answers)
    answers.seek(0)
    assert receive(answers)[0] == {"ok": False, "error": "KeyError: 'x'"}
    assert receive(answers)[0] == {"ok": True}


def test_a_worker_gives_what_the_function_gives(worker):
    inputs, dy = make()
    worker.hold(inputs, dy, length=L)
    got = worker.run("transformers")
    here = forward_backward(lambda **leaves: transformers_scan(**leaves, length=L), inputs, dy)
    assert got.keys() == {"y", "dx", "ddt", "dA", "dB", "dC", "dD"}
    for name, value in here.items():
        torch.testing.assert_close(got[name], value)


@pytest.mark.parametrize("backward", [True, False])
def test_times_are_one_a_repetition(worker, backward):
    inputs, dy = make()
    worker.hold(inputs, dy, length=L)
    seconds = worker.time("transformers", 3, backward=backward)
    assert len(seconds) == 3
    assert all(0 < value < 60 for value in seconds)


def test_mistakes_name_what_was_got(worker):
    inputs, dy = make()
    with pytest.raises(ValueError, match="got 'mamba', expected one of transformers, mamba_chunk"):
        worker.run("mamba")
    with pytest.raises(ValueError, match="length: got 3 for 10 tokens"):
        worker.hold(inputs, dy, length=3)
    with pytest.raises(ValueError, match=r"inputs: got \['A'\], expected x, dt, A, B, C, D"):
        worker.hold({"A": dy}, dy, length=L)


def test_a_failing_peer_is_reported_and_the_worker_lives(worker):
    inputs, dy = make()
    worker.hold(inputs | {"B": inputs["B"][:, :, :2]}, dy, length=L)
    with pytest.raises(RuntimeError, match=r"peers: .*'run'.*Error"):
        worker.run("transformers")
    worker.hold(inputs, dy, length=L)
    assert worker.run("transformers")["y"].shape == dy.shape


def test_a_worker_that_ended_is_reported():
    inputs, dy = make()
    with (
        pytest.raises(RuntimeError, match="the worker ended with status"),
        PeerWorker(python=Path("/bin/false")) as dead,
    ):
        dead.hold(inputs, dy, length=L)


def test_without_peers_the_error_says_what_to_run(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="run: make peers"),
        PeerWorker(python=tmp_path / "python"),
    ):
        pass
