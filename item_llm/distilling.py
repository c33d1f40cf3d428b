"""A table of token vectors distilled from a model: what `base: static` reads instead of a model.

    config.json          model_type, width, how it was made
    model.safetensors    embeddings float32 [V, D], the tokens' weights multiplied in
    tokenizer files      the teacher's
    manifest.json        checksums, last

Each token is given to the teacher as a text of its own, and keeps the vector that comes out. What
all tokens share is taken out, which is their mean and the D / 100 principal directions of largest
variance (Mu and Viswanath 2018). Frequent tokens are made small by smooth inverse frequency,
a / (a + p) (Arora et al. 2017), with p from the token's rank by Zipf's law: a WordPiece vocabulary
is ordered by frequency. The layout is that of the library model2vec, which began this [D].

Shapes: V tokens, D the width, K principal directions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from item_llm.folders import publish, read_manifest, sha256_of_json, staged, write_manifest

if TYPE_CHECKING:
    from item_llm.base_models import PretrainedModel
    from item_llm.encoder import ItemEncoder

MODEL_TYPE = "model2vec"
TABLE = "embeddings"  # in model.safetensors
_KIND = "distilled table"
_RECIPE = {"version": 1, "taken_out": 0.01, "sif": 1e-4}  # raise the version with what it makes
_TOKENS = 512  # in one forward pass of the teacher


def distilled(teacher: PretrainedModel, models: Path) -> Path:
    """The folder of a teacher's table; made on first use (a minute), safe for racing processes.

    Args:
        teacher: an encoder that takes the mean over a text's tokens.
        models: the folder of all made models.

    Raises:
        ValueError: the folder is damaged.
    """
    folder = distilled_folder(teacher, models)
    if not folder.exists():
        with staged(folder) as staging:
            _distil(teacher, staging)
            write_manifest(staging, _KIND, {"teacher_sha256": teacher.sha256, "recipe": _RECIPE})
            publish(staging, folder, replace=False)
    read_manifest(folder, _KIND)
    return folder


def distilled_folder(teacher: PretrainedModel, models: Path) -> Path:
    """Where a teacher's table is, or will be."""
    return models / f"static-{sha256_of_json([teacher.sha256, _RECIPE])[:16]}"


def without_common(vectors_VD: np.ndarray, directions: int) -> np.ndarray:
    """Vectors float64 [V, D] without their mean and without the directions of largest variance.

    Args:
        vectors_VD: float [V, D].
        directions: how many of the principal directions to take out.
    """
    centred_VD = vectors_VD.astype(np.float64)
    centred_VD -= centred_VD.mean(axis=0)
    _, principal_DD = np.linalg.eigh(centred_VD.T @ centred_VD)  # ascending
    common_DK = principal_DD[:, principal_DD.shape[1] - directions :]
    return centred_VD - (centred_VD @ common_DK) @ common_DK.T


def inverse_frequency(ranked: np.ndarray, a: float) -> np.ndarray:
    """Weights a / (a + p) of tokens, float64 [V], with p in proportion to 1 / (rank + 1).

    Args:
        ranked: bool [V], tokens in order of frequency; those marked False have no rank: weight 1.
        a: smaller: frequent tokens count less.
    """
    share_V = ranked / np.maximum(1 + np.cumsum(ranked), 1)
    return a / (a + share_V / share_V.sum())


def _distil(teacher: PretrainedModel, folder: Path) -> None:
    from safetensors.torch import save_file

    from item_llm.encoder import ItemEncoder
    from item_llm.reading import EncoderConfig

    encoder = ItemEncoder(EncoderConfig(base=teacher.name), teacher).requires_grad_(False)
    tokenizer = encoder.tokens.tokenizer
    directions = round(_RECIPE["taken_out"] * encoder.dim)
    table = without_common(_token_vectors(encoder, len(tokenizer)), directions)
    table *= inverse_frequency(_ranked(tokenizer), _RECIPE["sif"])[:, None]
    save_file({TABLE: torch.from_numpy(table).float()}, folder / "model.safetensors")
    tokenizer.save_pretrained(folder)
    config = {
        "model_type": MODEL_TYPE,
        "architectures": ["StaticModel"],
        "hidden_dim": table.shape[1],
        "normalize": True,
        "teacher_sha256": teacher.sha256,
        "recipe": _RECIPE,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _token_vectors(encoder: ItemEncoder, tokens: int) -> np.ndarray:
    """The teacher's vectors float32 [V, D] of every token alone; padding's is an empty text's."""
    pad = encoder.tokens.tokenizer.pad_token_id
    rows = [[] if token == pad else [token] for token in range(tokens)]
    with torch.inference_mode():
        parts = [
            encoder([encoder.collate(rows[start : start + _TOKENS])]).cpu().numpy()
            for start in range(0, tokens, _TOKENS)
        ]
    return np.concatenate(parts)


def _ranked(tokenizer: Any) -> np.ndarray:
    """Which tokens, bool [V], occur in texts: none that is special or kept free."""
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    special = set(tokenizer.all_special_tokens)
    return np.array([name not in special and not name.startswith("[unused") for name in names])
