from pipeline.finetuning_curve import FinetuningCurve


def test_a_resumed_curve_is_whole_and_a_repeated_step_counts_once(tmp_path):
    path = tmp_path / "scratch" / "steps.jsonl"
    first = FinetuningCurve(path)
    for step in (1, 2, 3):
        first.append(step, 1.0, 0.1)
    with path.open("a") as stream:
        stream.write('\n{"step": 4, "lo')  # killed while it wrote
    second = FinetuningCurve(path)
    for step in (3, 4):
        second.append(step, 0.5, 0.1)
    points = second.read()
    assert [(point["step"], point["loss"]) for point in points] == [
        *((1, 1.0), (2, 1.0), (3, 0.5), (4, 0.5))
    ]


def test_without_a_step_it_is_empty(tmp_path):
    assert FinetuningCurve(tmp_path / "steps.jsonl").read() == []
