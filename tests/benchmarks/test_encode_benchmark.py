"""benchmarks.encode: both sides encode alike; the rival of its own venv is not needed for that."""

import pytest

from benchmarks.encode import LEAST_COSINE, MAX_TOKENS, compare, plain_loop, timed
from item_llm import EncoderConfig, ItemEncoder


@pytest.mark.slow
@pytest.mark.timed
def test_both_encoders_are_measured(capsys):
    config = EncoderConfig(base="smollm2", max_tokens=MAX_TOKENS)
    ours = {"float32": ItemEncoder.load(config)}
    texts = ["Oak desk", "A wooden train set of 80 pieces, for two", "Lamp", "Quiet hours"]
    rows = compare(
        "plain loop", texts, lambda some: timed(lambda t: plain_loop(ours["float32"], t), some),
        ours, 1,
    )  # fmt: skip
    assert rows["float32"]["cosine"] > LEAST_COSINE
    assert rows["float32"]["ratio"] > 0
    assert "items/s" in capsys.readouterr().out
