"""An encoder without a transformer: a text's vector is the sum of its tokens' vectors.

For CI and laptops: a hundred times as fast as MiniLM, which cannot be said of its tuning: it has no
layers (docs/item_vectors.md). The table comes from `distilling`, which put the tokens' weights in.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from item_llm.base_models import PretrainedModel
from item_llm.distilling import TABLE
from item_llm.prompts import TextTokenizer, distinct_texts
from item_llm.reading import EncoderConfig, Reading

_TEXTS = 4096  # tokenized and summed at a time


class StaticEncoder:
    """A table of token vectors that turns item texts into unit vectors, on the CPU.

    Attributes:
        table: float32 [V, d] vector of each token.
        dim: d, the vectors' width.
        fingerprint: hex sha256 of everything that decides a text's vector: the table's bytes too.
    """

    def __init__(self, config: EncoderConfig, base: PretrainedModel) -> None:
        reading = Reading.of(config, base)
        self.fingerprint = reading.fingerprint(None)
        self.table = _table(base)
        self.dim = base.dim()
        self.tokens = TextTokenizer.build(reading.tokenizer, "", config.max_tokens)
        self._empty = [reading.tokenizer.pad_token_id or 0]  # its row is the empty text's vector

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts, each distinct one once.

        Args:
            texts: any texts; they are normalised first.

        Returns:
            float32 [n, d], L2-normalised, in the order of `texts`; a text's vector does not depend
            on the others.
        """
        distinct, inverse = distinct_texts(texts)
        vectors = np.empty((len(distinct), self.dim), dtype=np.float32)
        for start in range(0, len(distinct), _TEXTS):
            vectors[start : start + _TEXTS] = self._sums(distinct[start : start + _TEXTS])
        return vectors[inverse]

    def _sums(self, texts: list[str]) -> np.ndarray:
        rows = [row or self._empty for row in self.tokens(texts)]
        ids_T = torch.tensor(list(chain.from_iterable(rows)))
        starts_B = torch.tensor([0, *map(len, rows[:-1])]).cumsum(0)
        sums_Bd = F.embedding_bag(ids_T, self.table, starts_B, mode="sum")
        return F.normalize(sums_Bd, dim=-1).numpy()


def _table(base: PretrainedModel) -> torch.Tensor:
    """The table float32 [V, d] in a folder.

    Raises:
        ValueError: there is none, or what is there is not read as one row a token.
    """
    from safetensors.torch import load_file

    path: Path = base.folder / "model.safetensors"
    tensors = load_file(path) if path.is_file() else {}
    if set(tensors) != {TABLE} or tensors[TABLE].ndim != 2 or tensors[TABLE].shape[1] != base.dim():
        shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
        raise ValueError(
            f"base {base.name!r}: {path} holds {shapes}, expected {TABLE!r} alone, a row of "
            f"{base.dim()} numbers a token; other layouts of static tables are not read"
        )
    return tensors[TABLE].float()
