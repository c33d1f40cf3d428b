"""Item texts in, item vectors out: the shared item LLM, its fine-tuning and its cache of vectors.

    from item_llm import EncoderConfig, ItemEncoder
    vectors = ItemEncoder.load(EncoderConfig(base="minilm")).encode(["Wooden train set, 80 pieces"])

Nothing here knows of users, of Ray or of the pipeline.
"""

from item_llm.adapter import LoraConfig
from item_llm.config import ItemLLMConfig
from item_llm.encoder import ItemEncoder
from item_llm.finetune_result import FinetuneResult
from item_llm.finetuning_config import FinetuningConfig
from item_llm.loading import load_encoder
from item_llm.pairs import ItemPairs, next_item_pairs
from item_llm.reading import EncoderConfig
from item_llm.snapshot import Snapshot
from item_llm.static_encoder import StaticEncoder
from item_llm.training import finetune

__all__ = [
    "EncoderConfig",
    "FinetuneResult",
    "FinetuningConfig",
    "ItemEncoder",
    "ItemLLMConfig",
    "ItemPairs",
    "LoraConfig",
    "Snapshot",
    "StaticEncoder",
    "finetune",
    "load_encoder",
    "next_item_pairs",
]
