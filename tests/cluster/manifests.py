"""The files of cluster/ as data, and where what they must agree with is written."""

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "cluster"
INSTALLED_AT = "/opt/hydrarec/"  # of the repository, in the images
SCHEMAS = Path(os.environ.get("HYDRAREC_SCHEMAS", ROOT.parent / "shared" / "schemas"))


def read(name: str) -> dict[str, Any]:
    """One YAML file of cluster/, with one document."""
    return yaml.safe_load((FOLDER / name).read_text())


def pinned(package: str) -> str:
    """The version of a package that pyproject.toml names exactly."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (line,) = [d for d in project["dependencies"] if d.split("==")[0].split("[")[0] == package]
    return line.split("==")[1]


def clusters() -> list[Any]:
    """The RayCluster specs of all manifests, by file."""
    return [
        pytest.param(read("raycluster.yaml")["spec"], id="raycluster"),
        pytest.param(read("rayjob.yaml")["spec"]["rayClusterSpec"], id="rayjob"),
    ]


def pods(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates of a RayCluster, the head's first."""
    return [spec["headGroupSpec"]["template"], *(g["template"] for g in spec["workerGroupSpecs"])]
