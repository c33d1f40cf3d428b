import pytest
from transformers import AutoTokenizer

from item_llm.prompts import TextTokenizer, normalise_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a \t b\n\nc ", "a b c"),
        ("Cafe\u0301", "Caf\u00e9"),  # decomposed to composed
        ("a\u00a0b\u3000c", "a b c"),  # white space of other scripts
        ("", ""),
        (" \n", ""),
        ("Keep: CASE, 1,000\u2122", "Keep: CASE, 1,000\u2122"),
    ],
)
def test_normalise_text(text, expected):
    assert normalise_text(text) == expected
    assert normalise_text(expected) == expected


def test_prompt_is_a_prefix_and_texts_are_cut(tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokens = TextTokenizer.build(tokenizer, "red  wooden", max_tokens=3)
    assert tokenizer.decode(tokens.prefix) == "red wooden"
    assert tokens.suffix == ()
    rows = tokens(["blue train", "", "green puzzle, set of 12"])
    assert tokenizer.decode(rows[0]) == " blue train"
    assert rows[1] == []
    assert len(rows[2]) == 3


def test_special_tokens_of_an_encoder_are_kept_apart():
    tokenizer = AutoTokenizer.from_pretrained(_minilm())
    tokens = TextTokenizer.build(tokenizer, "", max_tokens=64)
    assert tokenizer.convert_ids_to_tokens([*tokens.prefix, *tokens.suffix]) == ["[CLS]", "[SEP]"]
    (row,) = tokens(["a red train"])
    assert [*tokens.prefix, *row, *tokens.suffix] == tokenizer("a red train").input_ids


def _minilm():
    from item_llm.base_models import PretrainedModel

    return PretrainedModel.find("minilm").folder
