"""GGUF files of the llama architecture, dequantised to a Hugging Face folder in float32.

Two things a GGUF does not say. llama.cpp stores the rows of q and k so that rotary pairs lie side
by side; Hugging Face keeps the halves apart, so they are put back. And `tokenizer.ggml.pre` only
names the pre-tokenizer: what it does is written here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

_LAYER_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_OUTER_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_CONTROL_TOKEN = 3


class GGUFModel:
    """One GGUF file, read lazily.

    Raises:
        ValueError: another architecture, tokenizer or tensor than this module knows.
    """

    def __init__(self, path: Path) -> None:
        import gguf

        self.path = path
        self._reader = gguf.GGUFReader(path)
        self._expect("general.architecture", ("llama",))
        self._expect("tokenizer.ggml.model", ("gpt2",))
        self._expect("tokenizer.ggml.pre", ("smollm", "gpt-2"))

    def convert(self, folder: Path) -> None:
        """Write config, safetensors weights (float32) and tokenizer into `folder`."""
        from safetensors.torch import save_file

        weights = self.weights()
        config = self.config(tied="lm_head.weight" not in weights)
        config.save_pretrained(folder)
        self.tokenizer(config).save_pretrained(folder)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    def config(self, *, tied: bool) -> Any:
        """The LlamaConfig that the file's metadata describe."""
        from transformers import LlamaConfig

        heads = self._llama("attention.head_count")
        width = self._llama("embedding_length")
        if self._llama("rope.dimension_count") != width // heads:
            raise ValueError(
                f"{self.path}: rope.dimension_count is {self._llama('rope.dimension_count')}, "
                f"expected {width // heads} (a full head); partial rotary heads are not supported"
            )
        return LlamaConfig(
            architectures=["LlamaForCausalLM"],
            vocab_size=len(self._value("tokenizer.ggml.tokens")),
            hidden_size=width,
            intermediate_size=self._llama("feed_forward_length"),
            num_hidden_layers=self._llama("block_count"),
            num_attention_heads=heads,
            num_key_value_heads=self._llama("attention.head_count_kv"),
            max_position_embeddings=self._llama("context_length"),
            rms_norm_eps=round(float(self._llama("attention.layer_norm_rms_epsilon")), 9),
            rope_parameters={
                "rope_type": "default",
                "rope_theta": float(self._llama("rope.freq_base")),
            },
            tie_word_embeddings=tied,
            bos_token_id=self._value("tokenizer.ggml.bos_token_id"),
            eos_token_id=self._value("tokenizer.ggml.eos_token_id"),
            pad_token_id=self._value("tokenizer.ggml.padding_token_id"),
            dtype="float32",
        )

    def weights(self) -> dict[str, torch.Tensor]:
        """Hugging Face's name -> float32 tensor."""
        import gguf

        weights = {}
        for tensor in self._reader.tensors:
            array = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            array = array.reshape(tuple(int(n) for n in tensor.shape[::-1]))
            name, heads = self._translate(tensor.name)
            if heads:
                array = _unpermute(array, heads)
            weights[name] = torch.from_numpy(np.array(array, order="C", copy=True))
        return weights

    def tokenizer(self, config: Any) -> Any:
        """A fast tokenizer with the file's vocabulary, merges and control tokens."""
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        tokens = self._value("tokenizer.ggml.tokens")
        kinds = self._value("tokenizer.ggml.token_type")
        merges = [tuple(merge.split(" ")) for merge in self._value("tokenizer.ggml.merges")]
        vocabulary = {token: i for i, token in enumerate(tokens)}
        bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
        if self._value("tokenizer.ggml.pre") == "smollm":
            steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
        bpe.pre_tokenizer = pre_tokenizers.Sequence(steps)
        bpe.decoder = decoders.ByteLevel()
        control = [t for t, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL_TOKEN]
        bpe.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
        return PreTrainedTokenizerFast(
            tokenizer_object=bpe,
            padding_side="right",
            clean_up_tokenization_spaces=False,
            bos_token=tokens[config.bos_token_id],
            eos_token=tokens[config.eos_token_id],
            pad_token=tokens[config.pad_token_id],
        )

    def _translate(self, name: str) -> tuple[str, int]:
        """Hugging Face's name of a tensor, and its heads if its rows are permuted (else 0)."""
        parts = name.split(".")
        if len(parts) == 2 and parts[0] in _OUTER_NAMES:
            return f"{_OUTER_NAMES[parts[0]]}.{parts[1]}", 0
        if len(parts) == 4 and parts[0] == "blk" and parts[2] in _LAYER_NAMES:
            heads = {"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv"}
            permuted = self._llama(heads[parts[2]]) if parts[2] in heads else 0
            return f"model.layers.{parts[1]}.{_LAYER_NAMES[parts[2]]}.{parts[3]}", permuted
        raise ValueError(f"{self.path}: tensor {name!r} is none of a llama model's: not supported")

    def _expect(self, key: str, known: tuple[str, ...]) -> None:
        got = self._value(key)
        if got not in known:
            raise ValueError(
                f"{self.path}: {key} is {got!r}, supported: {', '.join(known)}; "
                "use the model's safetensors folder instead"
            )

    def _llama(self, key: str) -> Any:
        return self._value(f"llama.{key}")

    def _value(self, key: str) -> Any:
        if key not in self._reader.fields:
            raise ValueError(f"{self.path}: the GGUF metadata have no {key!r}; is the file whole?")
        return self._reader.fields[key].contents()


def _unpermute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k from rotary pairs side by side to the two halves of each head."""
    paired = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return paired.swapaxes(1, 2).reshape(rows.shape)
