"""The Dockerfile: pinned, not run as root, and of the versions that the project names."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.cluster.manifests import FOLDER, INSTALLED_AT, ROOT, pinned

DOCKERFILE = (FOLDER / "Dockerfile").read_text()


def instructions(name):
    """Arguments of an instruction, continued lines joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.split(None, 1)[1] for line in joined.splitlines() if line.startswith(name + " ")]


def test_there_are_targets_for_cpu_and_gpu_on_one_pinned_base():
    assert re.fullmatch(r"PYTHON=3\.11\.\d+-slim-\w+", instructions("ARG")[0])
    stages = [tuple(line.split(" AS ")) for line in instructions("FROM")]
    assert stages[0] == ("python:${PYTHON}", "base")
    assert {name for _, name in stages} >= {"cpu", "gpu"}
    assert {origin for origin, _ in stages[1:]} <= {name for _, name in stages}


def test_nothing_runs_as_root_after_the_base():
    assert instructions("USER") == ["ray"]
    assert DOCKERFILE.index("USER ray") < DOCKERFILE.index("COPY")
    assert "--uid 1000" in DOCKERFILE  # as the manifests' runAsUser


def test_the_repository_lies_where_the_manifests_look_for_it():
    assert [path + "/" for path in instructions("WORKDIR")] == [INSTALLED_AT]


def test_the_tags_named_in_it_are_ray_s_version():
    assert set(re.findall(r"hydrarec:([\d.]+)-", DOCKERFILE)) == {pinned("ray")}


def test_the_small_encoders_are_those_of_the_makefile():
    named = re.search(r"^ENCODERS := (.*)$", (ROOT / "Makefile").read_text(), re.M).group(1)
    assert DOCKERFILE.count(f"--no-deps {named}") == 2


def constraints():
    lines = (FOLDER / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def requirements():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]


@pytest.mark.parametrize("line", requirements())
def test_a_requirement_admits_the_version_that_images_install(line):
    requirement = Requirement(line)
    version = constraints()[requirement.name.lower()]
    assert requirement.specifier.contains(Version(version)), f"{line}, {version}: run `make lock`"
