"""What the tests of benchmarks share."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """Torch on one thread, as the benchmarks run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
