"""The run card, run.json: on what, with what, and how long; all that metrics.json must not hold."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.config import RunConfig
from pipeline.paths import project_root
from pipeline.stages import StageResult

_PACKAGES = ("hydrarec", "torch", "ray", "deepspeed", "transformers", "peft", "pylance", "numpy")


def run_card(
    config: RunConfig,
    results: Mapping[str, StageResult],
    *,
    started: str,
    seconds: float,
    details: Mapping[str, Any],
) -> dict[str, Any]:
    """Assemble run.json.

    Args:
        config: the run's configuration.
        results: what became of each stage.
        started: when the run began, ISO 8601 in UTC.
        seconds: how long it took.
        details: what the stages found out: adapter, cache, parameters.
    """
    return {
        **conditions(config),
        "started": started,
        "seconds": round(seconds, 2),
        "stages": [_stage(result) for result in results.values()],
        **details,
    }


def conditions(config: RunConfig) -> dict[str, Any]:
    """What of the card is known before the run begins: the config, versions and hardware."""
    return {
        "name": config.name,
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "config_hash": config.results_hash(),
        "versions": versions(),
        "git": git_revision(),
        "hardware": hardware(),
    }


def versions() -> dict[str, str]:
    """Installed versions of Python and of the packages that decide results."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def hardware() -> dict[str, Any]:
    """Cores, memory and accelerators of the driver's machine."""
    import torch

    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(pages * page / 2**30, 1),
        "gpus": gpus,
    }


def git_revision() -> str | None:
    """The project's commit, `-dirty` if files differ from it; None outside a checkout."""
    try:
        root = project_root()
        revision = _git(root, ["rev-parse", "--short=12", "HEAD"])
        changed = _git(root, ["status", "--porcelain", "--untracked-files=no"])
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    return f"{revision}-dirty" if changed else revision


def _git(folder: os.PathLike[str], arguments: Iterable[str]) -> str:
    command = ["git", "-C", os.fspath(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _stage(result: StageResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "status": result.status,
        "seconds": round(result.seconds, 3),
        "made_in_seconds": result.facts.get("seconds"),
        "peak_mb": result.facts.get("peak_mb"),
        "path": result.artifact.path.name,
    }
