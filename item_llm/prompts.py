"""How an item's text becomes tokens: normalise, put after a fixed prompt, cut, mark the end.

Sequence of tokens: [special tokens] prompt text [ITEM or special tokens]. The special tokens are
the tokenizer's own (BERT's [CLS] and [SEP], Llama 2's <s>). [ITEM] is no token of the vocabulary:
its embedding is a parameter of the encoder, so the vocabulary is never resized.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

DEFAULT_PROMPT = "Compress this product into an embedding:"


def normalise_text(text: str) -> str:
    """Unicode NFC, every run of white space one space, none at the ends.

    The one normalisation: what is encoded and what keys the cache both pass through here.
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def distinct_texts(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The distinct normalised texts as they first come, and int64 [n]: which of them a text is."""
    position: dict[str, int] = {}
    inverse = [position.setdefault(normalise_text(t), len(position)) for t in texts]
    return list(position), np.array(inverse, dtype=np.int64)


@dataclass(frozen=True)
class TextTokenizer:
    """Token ids of item texts, without the parts that all items share.

    Attributes:
        tokenizer: a fast Hugging Face tokenizer.
        prefix: ids before every item's text: special tokens, then the prompt.
        suffix: ids after it: special tokens.
        glue: a space, if a prompt precedes the text (byte-level BPE sees word boundaries so).
        max_tokens: texts are cut to this many tokens.
    """

    tokenizer: Any
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    glue: str
    max_tokens: int

    @classmethod
    def build(cls, tokenizer: Any, prompt: str, max_tokens: int) -> TextTokenizer:
        """Find the tokenizer's own special tokens and put `prompt` between them and the text."""
        before, after = _special_tokens(tokenizer)
        prompt = normalise_text(prompt)
        ids = tokenizer(prompt, add_special_tokens=False).input_ids if prompt else []
        return cls(tokenizer, (*before, *ids), tuple(after), " " if prompt else "", max_tokens)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, in order; an empty text has none."""
        if not texts:
            return []
        ready = [self.glue + text if text else "" for text in map(normalise_text, texts)]
        rows = self.tokenizer(
            ready,
            add_special_tokens=False,
            truncation=True,
            max_length=self.max_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
        ).input_ids
        return [list(row) for row in rows]


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids that the tokenizer puts before and after a text."""
    bare = tokenizer("a", add_special_tokens=False).input_ids
    whole = tokenizer("a").input_ids
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    raise ValueError(
        f"{type(tokenizer).__name__}: ids of 'a' are {bare} alone and {whole} with special tokens; "
        "expected the first inside the second, so this tokenizer cannot be used"
    )
