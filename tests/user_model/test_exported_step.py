"""The exported step is the model's step, saved, loaded and fed again."""

import pytest
import torch

from user_model import Hydra, HydraConfig
from user_model.exported_step import export_step


@pytest.mark.parametrize(
    "config", [{}, {"history_mean": True, "head": "lean"}, {"time_gaps": True}]
)
def test_the_program_goes_on_as_the_model_does(config, tmp_path):
    model = Hydra(HydraConfig(dim=16, layers=2, **config)).eval().requires_grad_(False)
    torch.export.save(export_step(model), tmp_path / "step.pt2")
    program = torch.export.load(tmp_path / "step.pt2")
    assert not [n for n in program.graph.nodes if "hydrarec" in str(n.target)]
    step = program.module()
    state = model.init_state(5)
    tensors = state.to_dict()
    for number in range(6):
        vectors = torch.randn(5, 16)
        times = torch.randint(0, 10**5, (5,)) + number * 10**5 if model.reads_times else None
        state, expected = model.step(state, vectors, times)
        found, tensors = step(vectors, tensors, times)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert tensors.keys() == state.to_dict().keys()
        for name, tensor in state.to_dict().items():
            torch.testing.assert_close(tensors[name], tensor, rtol=1e-5, atol=1e-5)
