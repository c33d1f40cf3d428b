"""KubeRay's manifests: the strict schema, and the rules between fields that no schema holds."""

import json
import re
import shlex

import jsonschema
import pytest
import yaml

from pipeline.config import load
from tests.cluster.manifests import (
    FOLDER,
    INSTALLED_AT,
    ROOT,
    SCHEMAS,
    clusters,
    pinned,
    pods,
    read,
)

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LONGEST_NAME = 47  # KubeRay adds to it, and Kubernetes ends at 63


def schema(kind):
    file = SCHEMAS / f"kuberay-v1-{kind}.strict.schema.json"
    if not file.is_file():
        pytest.skip(f"needs {file} (set HYDRAREC_SCHEMAS)")
    return json.loads(file.read_text())


@pytest.mark.parametrize("kind", ["raycluster", "rayjob"])
def test_the_strict_schema_accepts_the_manifest_and_refuses_a_misspelt_field(kind):
    validator = jsonschema.Draft7Validator(schema(kind))
    manifest = read(f"{kind}.yaml")
    assert [error.message for error in validator.iter_errors(manifest)] == []
    spec = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    spec["workerGroupSpecs"][0]["minReplica"] = 0
    assert list(validator.iter_errors(manifest))


@pytest.mark.parametrize("kind", ["raycluster", "rayjob"])
def test_names_fit_what_kuberay_makes_of_them(kind):
    name = read(f"{kind}.yaml")["metadata"]["name"]
    assert DNS_1035.fullmatch(name)
    assert len(name) <= LONGEST_NAME


def test_the_job_runs_on_the_same_cluster_as_the_one_that_stands():
    assert read("rayjob.yaml")["spec"]["rayClusterSpec"] == read("raycluster.yaml")["spec"]


@pytest.mark.parametrize("spec", clusters())
def test_groups_scale_within_bounds(spec):
    assert spec["enableInTreeAutoscaling"]
    names = [group["groupName"] for group in spec["workerGroupSpecs"]]
    assert len(set(names)) == len(names)
    for group in spec["workerGroupSpecs"]:
        assert DNS_1035.fullmatch(group["groupName"])
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        # Autoscaler v2 replaces a pod that has ended; the kubelet must not start it again.
        assert group["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("spec", clusters())
def test_images_are_of_the_cluster_s_ray_which_is_the_project_s(spec):
    assert spec["rayVersion"] == pinned("ray")
    for pod in pods(spec):
        (container,) = pod["spec"]["containers"]
        has_gpus = "nvidia.com/gpu" in container["resources"]["limits"]
        tag = container["image"].rsplit(":", 1)[1]
        assert tag == f"{pinned('ray')}-{'gpu' if has_gpus else 'cpu'}"


@pytest.mark.parametrize("spec", clusters())
def test_nothing_is_scheduled_on_the_head_and_its_ports_have_names(spec):
    head = spec["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    ports = head["template"]["spec"]["containers"][0]["ports"]
    assert {port["name"]: port["containerPort"] for port in ports} == {
        "gcs": 6379, "dashboard": 8265, "client": 10001,
    }  # fmt: skip


@pytest.mark.parametrize("spec", clusters())
def test_pods_ask_for_what_they_may_use(spec):
    for pod in pods(spec):
        resources = pod["spec"]["containers"][0]["resources"]
        assert resources["requests"] == resources["limits"]
        assert {"cpu", "memory"} <= resources["limits"].keys()


@pytest.mark.parametrize("spec", clusters())
def test_pods_are_confined_and_share_one_volume(spec):
    for pod in pods(spec):
        (container,) = pod["spec"]["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert mounted.keys() == volumes.keys()
        assert mounted["shared"] == "/shared"
        claim = volumes["shared"]["persistentVolumeClaim"]["claimName"]
        assert claim == read("storage.yaml")["metadata"]["name"]


@pytest.mark.parametrize("spec", clusters())
def test_the_token_is_asked_for_and_secrets_stand_in_no_file(spec):
    assert spec["authOptions"] == {"mode": "token", "secretName": "hydrarec-ray-token"}
    assert tuple(map(int, spec["rayVersion"].split("."))) >= (2, 52)  # the first with tokens
    for pod in pods(spec):
        (container,) = pod["spec"]["containers"]
        assert "env" not in container
        assert [*container["envFrom"][0]] == ["secretRef"]


def test_spot_workers_are_a_group_of_their_own_and_the_head_is_never_one():
    spec = read("raycluster.yaml")["spec"]
    spot = [
        g["groupName"] for g in spec["workerGroupSpecs"] if "nodeSelector" in g["template"]["spec"]
    ]
    assert spot == ["gpu-spot"]
    assert "nodeSelector" not in spec["headGroupSpec"]["template"]["spec"]


def test_the_job_ends_its_cluster_and_tries_again():
    spec = read("rayjob.yaml")["spec"]
    assert ("rayClusterSpec" in spec, "clusterSelector" in spec) == (True, False)
    assert spec["submissionMode"] in {"K8sJobMode", "HTTPMode"}  # those that backoffLimit allows
    assert spec["backoffLimit"] == 3
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["shutdownAfterJobFinishes"]
    assert spec["ttlSecondsAfterFinished"] > 0
    assert yaml.safe_load(spec["runtimeEnvYAML"]).keys() <= {"env_vars", "working_dir"}


def test_the_job_s_command_is_one_that_this_repository_takes():
    python, *words = shlex.split(read("rayjob.yaml")["spec"]["entrypoint"])
    assert python == "python"
    files = [ROOT / word.removeprefix(INSTALLED_AT) for word in words if word.startswith("/")]
    assert [file.is_file() for file in files] == [True, True]
    options = words[words.index("--run-dir") :]
    assert not options[1].startswith("/")  # below HYDRAREC_HOME, the same for every try
    config = load(files[1], options[2:])
    group = read("rayjob.yaml")["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    cores = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert config.compute.cpus_per_worker <= cores
    assert config.compute.workers <= group["maxReplicas"]


def test_only_the_cluster_and_its_clients_reach_the_pods():
    policy = read("network-policy.yaml")["spec"]
    labels = policy["podSelector"]["matchLabels"]
    for pod in pods(read("raycluster.yaml")["spec"]):
        assert labels.items() <= pod["metadata"]["labels"].items()
    among, outside = policy["ingress"]
    assert among == {"from": [{"podSelector": {"matchLabels": labels}}]}
    assert [port["port"] for port in outside["ports"]] == [8265]
    assert all(rule for rule in policy["egress"])  # an empty rule would allow everything


def test_every_manifest_is_one_document_of_plain_yaml():
    for file in sorted(FOLDER.glob("*.yaml")):
        assert len(list(yaml.safe_load_all(file.read_text()))) == 1, file.name
