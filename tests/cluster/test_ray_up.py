"""ray-up.yaml, against the schema in Ray's wheel and Ray's own checks with defaults filled in."""

import json
from pathlib import Path

import jsonschema
import pytest
import ray
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.manifests import pinned, read

SCHEMA = json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())


def test_ray_accepts_the_file():
    config = read("ray-up.yaml")
    jsonschema.validate(config, SCHEMA)
    validate_config(prepare_config(config))


@pytest.mark.parametrize("wrong", [{"max_worker": 3}, {"docker": {"imag": "x"}}])
def test_a_misspelt_field_is_refused(wrong):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(read("ray-up.yaml") | wrong, SCHEMA)


def test_workers_are_bounded_and_start_with_none():
    config = read("ray-up.yaml")
    groups = {
        k: v for k, v in config["available_node_types"].items() if k != config["head_node_type"]
    }
    assert sum(group["max_workers"] for group in groups.values()) == config["max_workers"]
    assert [group["min_workers"] for group in groups.values()] == [0, 0]
    assert config["available_node_types"]["head"]["resources"] == {"CPU": 0}


def test_every_image_is_of_the_project_s_ray():
    config = read("ray-up.yaml")
    docker = config["docker"]
    images = [docker["head_image"], docker["worker_image"]]
    images += [
        group["docker"]["worker_image"]
        for group in config["available_node_types"].values()
        if "docker" in group
    ]
    assert [image.rsplit(":", 1)[1].split("-")[0] for image in images] == [pinned("ray")] * 3


def test_the_token_is_on_and_the_dashboard_stays_at_home():
    config = read("ray-up.yaml")
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    (start,) = [c for c in config["head_start_ray_commands"] if c.startswith("ray start")]
    assert "--dashboard-host=127.0.0.1" in start
    assert config["provider"]["security_group"]["IpPermissions"] == []
