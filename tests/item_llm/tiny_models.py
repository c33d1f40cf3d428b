"""A tiny random Llama with a tokenizer of its own, and texts that hide a structure to learn."""

import sys
from pathlib import Path

import numpy as np
import torch

KINDS = ("train", "doll", "puzzle", "robot", "kite", "drum", "castle", "truck")
COLOURS = ("red", "blue", "green", "yellow", "violet", "silver", "orange", "black")


def item_texts() -> list[str]:
    """64 texts: every colour of every kind; item = 8 * kind + colour."""
    return [f"{colour} wooden {kind}, set of {9 + i}" for kind in KINDS
            for i, colour in enumerate(COLOURS)]  # fmt: skip


def write_tiny_llama(folder: Path) -> Path:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet
    )
    bpe.train_from_iterator(item_texts(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", bos_token="<eos>", eos_token="<eos>"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_tiny_bert(folder: Path) -> Path:
    """A tiny random encoder whose tokens are the words of `item_texts`."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True)
    words = [*KINDS, *COLOURS, "wooden", "set", "of", ",", *map(str, range(9, 17))]
    special = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *words]) + "\n")
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,  # of which one hundredth, rounded, is one direction
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def item_pairs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source, target, domain: the next item is of the same kind; two domains of four kinds."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, len(KINDS), count)
    first = rng.integers(0, 8, count)
    second = (first + rng.integers(1, 8, count)) % 8
    return 8 * kind + first, 8 * kind + second, kind // 4


def item_histories(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets [count + 1], items, domain starts: rows of 2 to 9 items of one kind each."""
    rng = np.random.default_rng(seed)
    rows = [
        8 * rng.integers(0, len(KINDS)) + rng.permutation(8)[: rng.integers(2, 9)]
        for _ in range(count)
    ]
    return np.cumsum([0, *map(len, rows)]), np.concatenate(rows), np.array([0, 32, 64])


class LatestAndMean(torch.nn.Module):
    """A sequence model: the item, and a learned map of the mean of the items up to it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = torch.nn.Linear(width, width, bias=False)
        torch.nn.init.zeros_(self.map.weight)

    def forward(self, vectors: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
        means = [
            part.cumsum(0) / torch.arange(1, len(part) + 1)[:, None]
            for part in torch.tensor_split(vectors, cu_seqlens[1:-1])
        ]
        return vectors + self.map(torch.cat(means))


if __name__ == "__main__":
    write_tiny_llama(Path(sys.argv[1]))
