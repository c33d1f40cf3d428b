"""The fixed prompt is the same for every item: a causal LM reads it once, not once an item.

Attention lets the prompt see nothing of the item, so its keys and values are shared by all rows.
This is exact, and differentiable: gradients of all rows meet in the one run of the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

# Families whose cache is plain keys and values. Others (recurrent states, sliding windows) read
# the prompt with every item: slower, the same vectors.
_PLAIN_CACHES = frozenset({"llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox"})


def shares_prefix(model_type: str) -> bool:
    """Whether models of this Hugging Face type can read the prompt once for all items."""
    return model_type in _PLAIN_CACHES


@dataclass(frozen=True)
class Prefix:
    """The P tokens before every text: their embeddings and, if kept, their keys and values.

    Attributes:
        embedded: float [P, d].
        keys_values: a pair of [1, heads, P, width] for each layer; None if not kept.
        hidden_mean: mean of the prefix's last hidden states [d]; None if not kept.
    """

    embedded: torch.Tensor
    keys_values: tuple[tuple[torch.Tensor, torch.Tensor], ...] | None
    hidden_mean: torch.Tensor | None

    @classmethod
    def run(cls, core: Any, ids_P: torch.Tensor, *, keep: bool) -> Prefix:
        """Embed the prefix and, with `keep`, run it through the model."""
        table = core.get_input_embeddings()
        embeddings_Pd = table(ids_P.to(next(core.parameters()).device))
        if not keep or not len(ids_P):
            return cls(embeddings_Pd, None, None)
        output = core(inputs_embeds=embeddings_Pd[None], use_cache=True)
        layers = output.past_key_values.layers
        keys_values = tuple((layer.keys, layer.values) for layer in layers)
        return cls(embeddings_Pd, keys_values, output.last_hidden_state[0].mean(0))

    @property
    def length(self) -> int:
        """P."""
        return self.embedded.shape[0]

    @property
    def cached(self) -> bool:
        """Whether keys and values are kept."""
        return self.keys_values is not None

    def cache(self, rows: int) -> Any:
        """A fresh Hugging Face cache in which each of `rows` texts has read the prefix."""
        from transformers import DynamicCache

        assert self.keys_values is not None, "the prefix was not run"
        return DynamicCache(
            [
                (keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))
                for keys, values in self.keys_values
            ]
        )

    def embeddings(self, rows: int) -> torch.Tensor:
        """[rows, P, d], without a copy."""
        return self.embedded.expand(rows, -1, -1)

    def mean(self, hidden_BTd: torch.Tensor) -> torch.Tensor:
        """Mean hidden state over the prefix, broadcast over rows: [1, d] or [B, d]."""
        if self.hidden_mean is not None:
            return self.hidden_mean[None]
        return hidden_BTd[:, : self.length].mean(dim=1)
