"""Weights on disk: safetensors and a manifest with checksums, written aside, the manifest last.

A folder is complete if and only if its manifest is there and every checksum holds.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
_FORMAT = 1
_OWN = "manifest_sha256"


class CheckpointError(ValueError):
    """A folder of weights is absent, incomplete, damaged, or of another model."""


def save_tensors(
    folder: Path, files: Mapping[str, Mapping[str, Tensor]], record: Mapping[str, Any]
) -> None:
    """Write a folder of safetensors files and its manifest; an older one is replaced whole.

    Args:
        folder: where it is to stand.
        files: tensors by name, for each file name.
        record: what else the manifest says; JSON.
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    checksums = {}
    for name, tensors in files.items():
        # Cloned, since safetensors refuses tensors that share memory.
        owned = {key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}
        save_file(owned, aside / name)
        checksums[name] = _sync_and_hash(aside / name)
    manifest = {"format": _FORMAT, "sha256": checksums, "record": record}
    manifest[_OWN] = _hash_of_text(manifest)
    text = json.dumps(manifest, indent=2, sort_keys=True, allow_nan=True)
    (aside / MANIFEST).write_text(text, encoding="utf-8")
    _sync_and_hash(aside / MANIFEST)
    _replace(aside, folder)


def read_record(folder: Path) -> dict[str, Any]:
    """Return what the manifest of a folder records, after checking every checksum.

    Raises:
        CheckpointError: no manifest, an unknown format, a file absent or damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{path}: not there, expected the manifest of a complete checkpoint")
    version, checksums, record = _parsed(path)
    if version != _FORMAT:
        raise CheckpointError(f"{path}: got format {version}, expected {_FORMAT}; save it again")
    # By the folder's own list: a name that leads out of it, or that no file can have, is not there.
    present = {file.name for file in folder.iterdir() if file.is_file()}
    for name, expected in checksums.items():
        if name not in present:
            raise CheckpointError(
                f"{path}: names {name!r}, which is no file of its folder; save it again"
            )
        got = _hash(folder / name)
        if got != expected:
            raise CheckpointError(
                f"{folder / name}: got sha256 {got[:12]}, expected {expected[:12]}; "
                "the file is damaged"
            )
    return record


def _parsed(path: Path) -> tuple[object, dict[str, str], dict[str, Any]]:
    """A manifest's format, checksums and record; raises CheckpointError where they are none."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version, checksums, record = manifest["format"], manifest["sha256"], manifest["record"]
        if not all(isinstance(value, str) for value in checksums.values()):
            raise ValueError("a checksum is no text")
        if not isinstance(record, dict):
            raise ValueError("the record is no mapping")
        rest = {name: value for name, value in manifest.items() if name != _OWN}
        if manifest.get(_OWN) not in (None, _hash_of_text(rest)):  # older ones have none
            raise ValueError("it differs from its own checksum")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a manifest ({error!r}); save it again") from error
    return version, checksums, record


def read_tensors(folder: Path, name: str, device: str = "cpu") -> dict[str, Tensor]:
    """Return the tensors of one safetensors file of a folder that `read_record` has checked."""
    with safe_open(folder / name, framework="pt", device=device) as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def save_weights(folder: Path, model: nn.Module, config: Mapping[str, Any]) -> None:
    """Save a model's weights and the configuration that builds it.

    Args:
        folder: where weights.safetensors and manifest.json are to stand.
        model: its state_dict is saved (text vectors are not part of it).
        config: JSON; `load_weights` returns it.
    """
    save_tensors(folder, {WEIGHTS: model.state_dict()}, {"config": dict(config)})


def read_config(folder: Path) -> dict[str, Any]:
    """Return the configuration saved with the weights in `folder`, checksums checked.

    Raises:
        CheckpointError: the folder is not complete, or was saved without a configuration.
    """
    config = read_record(folder).get("config")
    if not isinstance(config, dict):
        raise CheckpointError(
            f"{folder / MANIFEST}: its record has no config, expected that of a model's weights; "
            "save it again"
        )
    return config


def load_weights(folder: Path, model: nn.Module) -> dict[str, Any]:
    """Load the weights of `folder` into `model`; return the configuration saved with them.

    Raises:
        CheckpointError: the folder is not complete, or holds the weights of another model.
    """
    config = read_config(folder)
    load_state(model, read_tensors(folder, WEIGHTS), str(folder / WEIGHTS))
    return config


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state_dict, naming what does not fit.

    Raises:
        CheckpointError: a name or a shape differs.
    """
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    got = {name: tuple(t.shape) for name, t in state.items()}
    if expected != got:
        names = sorted(n for n in expected.keys() | got.keys() if expected.get(n) != got.get(n))
        first = names[0]
        raise CheckpointError(
            f"{source}: {len(names)} tensors differ from the model's, the first {first}: got "
            f"{got.get(first)}, expected {expected.get(first)}; build the model by the "
            "configuration saved with the weights"
        )
    model.load_state_dict(dict(state))


def _replace(aside: Path, folder: Path) -> None:
    """Put `aside` in the place of `folder`, which keeps no manifest while it is taken away."""
    if folder.exists():
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder)
    os.replace(aside, folder)
    parent = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _sync_and_hash(path: Path) -> str:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    return _hash(path)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_of_text(manifest: Mapping[str, Any]) -> str:
    """sha256 of a manifest as it is read back: JSON knows no tuples and no integer keys."""
    text = json.dumps(json.loads(json.dumps(manifest)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a model's state_dict that training does not change."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


__all__ = [
    "CheckpointError",
    "copy_state",
    "load_state",
    "load_weights",
    "read_config",
    "read_record",
    "read_tensors",
    "save_tensors",
    "save_weights",
]
