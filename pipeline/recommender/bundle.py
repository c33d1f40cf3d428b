"""A bundle: the folder in which a trained model is used, copied and served.

    manifest.json            kind, format and the sha256 of every file; written last
    bundle.json              what it holds: see BundleConfig
    models/SCOPE/weights.safetensors     the sequence model: of all domains, or of one
    domains/NAME/ids.arrow, texts.arrow  the items, in the order of the rows
    domains/NAME/vectors.npy             float32 [V, width], as scores take them
    domains/NAME/inputs.npy              float32 [V, d], as the sequence model reads them; absent
                                         where they are the same
    domains/NAME/new_items.safetensors   what a text becomes; absent for models of ids alone
    adapter/                 of the text encoder, if it has one
    metrics.json, run.json   what the run measured, and its run card

Tables are mapped into memory. Nothing in it is unpickled, and only these names are opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from item_llm import EncoderConfig
from item_llm.folders import MANIFEST, read_manifest, sha256_of_json
from pipeline.storage.bucket import is_remote
from pipeline.storage.shared_folder import fetch_folder
from pipeline.whole_files import is_inside, read_json
from user_model import Hydra, HydraConfig
from user_model.checkpoint import load_state
from user_model.compiled_step import CompiledStep, cannot_compile
from user_model.streamed_users import ChannelSettings, UserStream

FORMAT = 1
KIND = "bundle"
BUNDLE = "bundle.json"
ADAPTER = "adapter"
ALL_DOMAINS = "all"  # the scope of a joint model

Models = dict[str, tuple[Hydra, CompiledStep | None]]  # by scope


class ChannelConfig(BaseModel):
    """A domain's text channel: see `user_model.text_channel`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(ge=1)
    decay: float = Field(gt=0.0, le=1.0)
    weight: float


class ScopeConfig(BaseModel):
    """A sequence model, and how its vectors are compared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hydra: HydraConfig
    normalise: bool


class BundledDomain(BaseModel):
    """A domain: which sequence model it has, and the size of its tables.

    Attributes:
        scope: Name of its sequence model.
        n_items: Rows V of its tables.
        channel: Its text channel; None: there is none.
        has_inputs: Whether inputs.npy is there.
        takes_new_items: Whether new_items.safetensors is there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scope: str
    n_items: int = Field(ge=1)
    channel: ChannelConfig | None
    has_inputs: bool
    takes_new_items: bool


class BundledEncoder(BaseModel):
    """The text encoder whose vectors the model was trained on: by reference, but its adapter.

    Attributes:
        config: The base, by name or folder, and how it reads a text.
        adapted: Whether the bundle has an adapter for it.
        fingerprint: Of the encoder with its adapter.
        dim: Width of its vectors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: EncoderConfig
    adapted: bool
    fingerprint: str
    dim: int


class BundleConfig(BaseModel):
    """bundle.json.

    Attributes:
        model: The model's name in the run.
        run: The run's name.
        window: Events of a history that the model was trained and asked with (split.max_history);
            None: all of them.
        scopes: Sequence models by name.
        domains: By name.
        encoder: None for models of ids alone.
        state: Type and shape of each tensor of a user's state, by scope.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    run: str
    window: int | None
    scopes: dict[str, ScopeConfig]
    domains: dict[str, BundledDomain]
    encoder: BundledEncoder | None
    state: dict[str, dict[str, tuple[str, list[int]]]]


class Bundle:
    """An open bundle: its config and the places of its files."""

    def __init__(self, folder: Path, config: BundleConfig, files: Mapping[str, str]) -> None:
        self.folder, self.config, self._files = folder, config, files

    @classmethod
    def open(cls, place: str | Path) -> Self:
        """Read the manifest, compare the checksum of every file, read the config.

        Args:
            place: a folder, or s3://BUCKET/PREFIX: this machine's copy of it is brought up to date.

        Raises:
            ValueError: no bundle, one of another format, or a damaged one.
            StorageError: the store of an address cannot be used.
        """
        folder = fetch_folder(str(place), KIND) if is_remote(place) else Path(place)
        manifest = read_manifest(folder, KIND, verify=False)
        if (got := manifest.get("format")) != FORMAT:
            raise ValueError(
                f"bundle {folder}: got format {got!r}, expected {FORMAT}; export the run again "
                "with this version of hydrarec"
            )
        for name in manifest["files"]:
            _check_inside(folder, name)
        files = read_manifest(folder, KIND)["files"]
        if BUNDLE not in files:
            raise ValueError(f"bundle {folder}: its {MANIFEST} names no {BUNDLE}; export it again")
        try:
            config = BundleConfig.model_validate(read_json(folder / BUNDLE))
        except ValidationError as error:
            raise ValueError(
                f"bundle {folder}: {BUNDLE} is not what this version of hydrarec writes "
                f"({error.errors()[0]['msg']} at {error.errors()[0]['loc']}); export it again"
            ) from error
        for name, domain in config.domains.items():
            if domain.scope not in config.scopes:
                raise ValueError(
                    f"bundle {folder}: domain {name} names the model {domain.scope!r}, and there "
                    f"are {sorted(config.scopes)}; export it again"
                )
        return cls(folder, config, files)

    @property
    def version(self) -> str:
        """Hash of all contents, 12 hexadecimal digits."""
        return sha256_of_json({"format": FORMAT, "files": dict(self._files)})[:12]

    def state_schema(self, domain: str) -> str:
        """Hash, 12 hexadecimal digits, of what a user's state in a domain has a meaning for.

        Of the sequence model's weights and the domain's items: another run card changes nothing.
        """
        scope = self.config.domains[domain].scope
        parts = [weights_file(scope), *(f"domains/{domain}/{name}" for name in _ITEM_FILES)]
        found = {name: self._files[name] for name in parts if name in self._files}
        return sha256_of_json({"domain": domain, "files": found})[:12]

    def file(self, name: str) -> Path:
        """Where a file is that the manifest names; raises ValueError where it names none such."""
        if name not in self._files:
            raise ValueError(f"bundle {self.folder}: holds no {name}; export it again")
        return self.folder / name

    def table(self, domain: str, name: str, width: int) -> NDArray[np.float32]:
        """A domain's float32 [V, width], mapped into memory; what is written to it stays there."""
        path = self.file(f"domains/{domain}/{name}.npy")
        try:
            rows = np.load(path, mmap_mode="c", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path}: is no table ({error}); export the bundle again") from error
        expected = (self.config.domains[domain].n_items, width)
        if rows.shape != expected or rows.dtype != np.float32:
            raise ValueError(
                f"{path}: got {rows.dtype} {list(rows.shape)}, expected float32 {list(expected)}; "
                "export the bundle again"
            )
        return rows.view(np.ndarray)  # of the map, whose own rows take longer to make

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors of a safetensors file."""
        path = self.file(name)
        try:
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path}: {error}; export the bundle again") from error

    def stream(self, domain: str, models: Models) -> UserStream:
        """The domain's sequence model; `models` keeps those that several domains share."""
        bundled = self.config.domains[domain]
        scope = self.config.scopes[bundled.scope]
        if bundled.scope not in models:
            weights = self.tensors(weights_file(bundled.scope))
            models[bundled.scope] = load_hydra(scope.hydra, weights)
        hydra, compiled = models[bundled.scope]
        channel = None
        if (found := bundled.channel) is not None:
            channel = ChannelSettings(found.width, found.decay, found.weight)
        return UserStream(hydra, channel, normalise=scope.normalise, compiled=compiled)


_ITEM_FILES = ("ids.arrow", "vectors.npy", "inputs.npy")


def weights_file(scope: str) -> str:
    """Where a sequence model's weights are in a bundle."""
    return f"models/{scope}/weights.safetensors"


def load_hydra(
    config: HydraConfig, weights: Mapping[str, torch.Tensor]
) -> tuple[Hydra, CompiledStep | None]:
    """A Hydra with these weights, for use: no gradients, in evaluation mode.

    With it its compiled step, where it has one: the ablation head: mamba1 has none.
    """
    model = Hydra(config)
    load_state(model, weights, "the bundle's weights")
    model = model.eval().requires_grad_(False)
    return model, None if cannot_compile(model) else CompiledStep(model)


def _check_inside(folder: Path, name: str) -> None:
    path = Path(name)
    linked = any((folder / part).is_symlink() for part in (path, *path.parents))
    if linked or not is_inside(name):
        raise ValueError(
            f"bundle {folder}: its {MANIFEST} names {name!r}, which is no plain file within the "
            "bundle; do not use this bundle"
        )
