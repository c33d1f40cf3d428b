import torch

from pipeline.history_model import HistoryModel


def test_at_first_a_history_is_its_last_item_and_then_all_of_it_counts():
    torch.manual_seed(0)
    model = HistoryModel(24, dim=16).eval()
    vectors = torch.randn(7, 24)
    seams = torch.tensor([0, 3, 7])
    torch.testing.assert_close(model(vectors, seams), vectors, rtol=0, atol=0)
    torch.nn.init.normal_(model.widen.weight)
    users = model(vectors, seams)
    changed = vectors.clone()
    changed[0] += 1
    moved = (model(changed, seams) - users).abs().amax(dim=1) > 1e-6
    assert moved.tolist() == [True, True, True, False, False, False, False]
