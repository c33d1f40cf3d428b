"""The text encoder: item texts in, unit vectors out.

Causal LMs read `prompt text [ITEM]`, and the item's vector is the last hidden state at [ITEM]
(source: the paper's item model, [P]). Encoders such as BERT are mean-pooled [D].

Shapes: n texts, B texts of one batch, T tokens, P tokens before the text, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from item_llm.base_models import PretrainedModel
from item_llm.batching import TokenBatch, by_token_budget
from item_llm.mixed_products import use_mixed_products
from item_llm.prompt_cache import Prefix, shares_prefix
from item_llm.prompts import TextTokenizer, distinct_texts
from item_llm.reading import EncoderConfig, Reading

_WEIGHTS = {"float32": torch.float32, "mixed": torch.float32, "bfloat16": torch.bfloat16}


class ItemEncoder(nn.Module):
    """A language model that turns item texts into unit vectors.

    Attributes:
        core: the model without its head (with LoRA layers while it is trained).
        item: float32 [d] embedding of [ITEM]; None where vectors are mean-pooled.
        dim: d, the vectors' width.
        fingerprint: hex sha256 of everything that decides a text's vector.
    """

    def __init__(
        self, config: EncoderConfig, base: PretrainedModel, *, shape_only: bool = False
    ) -> None:
        super().__init__()
        if base.is_static():
            raise ValueError(
                f"encoder.base {config.base!r} is a table of token vectors, not a model that could "
                "be tuned: set `lora: null` (load_encoder reads it), or name another base"
            )
        self.config = config
        self.base = base
        self._reading = Reading.of(config, base)
        self.causal, self.pooling = self._reading.causal, self._reading.pooling
        self.core = (base.shape if shape_only else base.load)(_WEIGHTS[config.dtype])
        self.dim = int(self.core.config.hidden_size)
        self.shares_prefix = shares_prefix(self.core.config.model_type)
        tokenizer, prompt = self._reading.tokenizer, self._reading.prompt
        self.tokens = TextTokenizer.build(tokenizer, prompt, config.max_tokens)
        self._adapter_sha256: str | None = None
        self._check_length()
        embeddings = self.core.get_input_embeddings().weight
        self.item = (
            nn.Parameter(embeddings.detach().float().mean(0)) if self.pooling == "item" else None
        )

    @classmethod
    def load(
        cls,
        config: EncoderConfig,
        adapter: Path | None = None,
        base: PretrainedModel | None = None,
    ) -> ItemEncoder:
        """Load a frozen encoder, onto a GPU where the process has one.

        With `adapter`, its LoRA is merged into the weights. `base` is the config's, where the
        caller has found it already.

        Raises:
            ValueError: a base that cannot be found, or an adapter that is damaged or was trained
                on another base, prompt or pooling.
        """
        from item_llm.adapter import merge_adapter

        encoder = cls(config, base or PretrainedModel.find(config.base))
        if adapter is not None:
            encoder._adapter_sha256 = merge_adapter(encoder, adapter)
        if config.dtype == "mixed":
            use_mixed_products(encoder.core)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return encoder.eval().requires_grad_(False).to(device)

    @property
    def reading(self) -> dict[str, Any]:
        """How a text is read: what an adapter is trained for and cannot be used without."""
        return self._reading.facts

    @property
    def fingerprint(self) -> str:
        """Hex sha256 over base weights, adapter, prompt, pooling, max_tokens, dtype, tokenizer."""
        return self._reading.fingerprint(self._adapter_sha256)

    def forward(self, batches: Sequence[TokenBatch]) -> torch.Tensor:
        """Encode token batches, differentiably.

        Args:
            batches: the texts' tokens; the prompt is run once for all of them.

        Returns:
            float32 [sum of B, d], L2-normalised, in the order of the batches.
        """
        prefix = self._prefix()
        hidden = [self._pooled(batch, prefix) for batch in batches]
        return F.normalize(torch.cat(hidden).float(), dim=-1)

    def encode(self, texts: Sequence[str], batch_tokens: int | None = None) -> np.ndarray:
        """Encode texts, each distinct one once, in batches of like length.

        Args:
            texts: any texts; they are normalised first.
            batch_tokens: overrides the configuration's.

        Returns:
            float32 [n, d], L2-normalised, in the order of `texts`.

        Raises:
            ValueError: the model gave a vector that is not finite.
        """
        if not len(texts):
            return np.zeros((0, self.dim), dtype=np.float32)
        distinct, inverse = distinct_texts(texts)
        rows = self.tokenize(distinct)
        vectors = np.empty((len(distinct), self.dim), dtype=np.float32)
        budget = batch_tokens or self.config.batch_tokens or self._suitable_batch_tokens()
        with torch.inference_mode():
            prefix = self._prefix()
            for group in by_token_budget([len(row) for row in rows], budget, self._overhead):
                batch = self.collate([rows[i] for i in group])
                pooled = self._pooled(batch, prefix).float()
                vectors[group] = F.normalize(pooled, dim=-1).cpu().numpy()
        _check_finite(vectors, distinct)
        return vectors[inverse]

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, cut to max_tokens, without what all texts share."""
        return self.tokens(texts)

    def collate(self, rows: Sequence[Sequence[int]]) -> TokenBatch:
        """A padded batch on the model's device."""
        pad = self.tokens.tokenizer.pad_token_id or 0
        return TokenBatch.collate(rows, pad, next(self.parameters()).device)

    def _suitable_batch_tokens(self) -> int:
        """Measured: a CPU is fastest while activations fit its cache, a GPU when it is full."""
        return 512 if next(self.parameters()).device.type == "cpu" else 16_384

    @property
    def _suffix(self) -> tuple[int, ...]:
        return () if self.pooling == "item" else self.tokens.suffix

    @property
    def _overhead(self) -> int:
        """Tokens that the model reads with each text, besides the text."""
        before = 0 if self.shares_prefix else len(self.tokens.prefix)
        return before + len(self._suffix) + (self.pooling == "item")

    def _prefix(self) -> Prefix:
        ids_P = torch.tensor(self.tokens.prefix, dtype=torch.int64)
        return Prefix.run(self.core, ids_P, keep=self.shares_prefix)

    def _pooled(self, batch: TokenBatch, prefix: Prefix) -> torch.Tensor:
        """Hidden states [B, d] of one batch, pooled, not normalised."""
        rows, lengths_B = len(batch.lengths), batch.lengths
        embeddings, ends_B = self._embed(batch)
        if prefix.cached:
            hidden = self.core(
                inputs_embeds=embeddings, past_key_values=prefix.cache(rows), use_cache=True
            ).last_hidden_state
            starts_B = torch.zeros_like(lengths_B)
        else:
            embeddings = torch.cat([prefix.embeddings(rows), embeddings], dim=1)
            ends_B, starts_B = ends_B + prefix.length, torch.full_like(lengths_B, prefix.length)
            at_T = torch.arange(embeddings.shape[1], device=ends_B.device)
            # On the meta device there are no lengths to tell padding by.
            padded = not (self.causal or embeddings.is_meta)
            mask = (at_T < ends_B[:, None]).long() if padded else None
            hidden = self.core(
                inputs_embeds=embeddings,
                attention_mask=mask,
                **({"use_cache": False} if self.causal else {}),
            ).last_hidden_state
        if self.pooling == "item":
            return hidden[torch.arange(rows, device=ends_B.device), ends_B - 1]
        if not self.causal:  # as sentence-transformers does: over the special tokens too
            return _mean(hidden, torch.zeros_like(starts_B), ends_B)
        means = _mean(hidden, starts_B, starts_B + lengths_B)
        return torch.where(lengths_B[:, None] > 0, means, prefix.mean(hidden))

    def _embed(self, batch: TokenBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings [B, T + tail, d] of text and tail, and where each row ends [B]."""
        lengths_B = batch.lengths
        tail = len(self._suffix) + (self.pooling == "item")
        ids_BT = F.pad(batch.ids, (0, tail))
        at_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        for k, token in enumerate(self._suffix):
            ids_BT = torch.where(at_T == lengths_B[:, None] + k, token, ids_BT)
        embeddings = self.core.get_input_embeddings()(ids_BT)
        if self.item is not None:
            marked = (at_T == lengths_B[:, None])[..., None]
            embeddings = torch.where(marked, self.item.to(embeddings.dtype), embeddings)
        return embeddings, lengths_B + tail

    def _check_length(self) -> None:
        limit = getattr(self.core.config, "max_position_embeddings", None)
        need = len(self.tokens.prefix) + self.config.max_tokens + len(self.tokens.suffix) + 1
        if limit is not None and need > limit:
            raise ValueError(
                f"encoder.max_tokens is {self.config.max_tokens}; with prompt and special tokens "
                f"that is {need}, but {self.config.base!r} reads {limit} at most: lower it"
            )
        if self.causal and self.pooling == "mean" and not self.tokens.prefix:
            raise ValueError(
                "encoder.pooling is 'mean' and the prompt is empty: an item without text would "
                "have no token to average; give a prompt, or pooling 'item'"
            )


def _mean(hidden_BTd: torch.Tensor, starts_B: torch.Tensor, ends_B: torch.Tensor) -> torch.Tensor:
    """Mean over positions start <= t < end, [B, d]; an empty range gives zeros."""
    at_T = torch.arange(hidden_BTd.shape[1], device=hidden_BTd.device)
    inside_BT = (at_T >= starts_B[:, None]) & (at_T < ends_B[:, None])
    total = torch.einsum("btd,bt->bd", hidden_BTd, inside_BT.to(hidden_BTd.dtype))
    return total / (ends_B - starts_B).clamp(min=1)[:, None]


def _check_finite(vectors: np.ndarray, texts: Sequence[str]) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{len(bad)} of {len(vectors)} vectors are not finite, the first for the text "
            f"{texts[bad[0]]!r}; the weights are damaged, or training diverged: lower its rate"
        )
