import importlib
import sys
from pathlib import Path

import pytest
import torch

from tests.beside import load

HERE = Path(__file__).parent


sys.modules["fatal_touch"] = importlib.import_module("tests.pipeline.faults.fatal_touch")
tiny_models = load(HERE / "tiny_models.py")
load(HERE / "zero_launch.py")
load(HERE / "zero_worker.py")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory) -> Path:
    return tiny_models.write_tiny_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> Path:
    return tiny_models.write_tiny_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def item_texts() -> list[str]:
    return tiny_models.item_texts()
