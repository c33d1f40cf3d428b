"""The main job as users run it: `ray job submit` in each form, again, and with a field changed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]

HYDRAS = ("hydra_joint", "hydra_single.books", "hydra_single.garden")


def statuses(output: str) -> dict[str, str]:
    """Stage -> ran, resumed or reused, as the job printed them."""
    return dict(re.findall(r"^ *\[\d+/\d+\] (\S+): (\w+)", output, re.M))


def test_the_job_prints_its_stages_a_table_and_the_report(first_run, workplace):
    ran = statuses(first_run.output)
    assert set(ran.values()) == {"ran"}
    assert {"corpus", "item_llm", "vectors", "train.hydra_joint", "metrics"} <= set(ran)
    assert re.search(r"^ NDCG@10 .* joint ", first_run.output, re.M)
    assert re.search(r"^ garden +(0\.\d{4} ?)+", first_run.output, re.M)
    assert f"report: {workplace.run_dir}/report.html" in first_run.output
    lines = first_run.output[first_run.output.index("[1/") :].splitlines()
    rays_own = re.compile(r"\[?\d{4}-\d\d-\d\d ")  # what Ray itself says begins with a date
    ours = [line for line in lines if not rays_own.match(line) and "report:" not in line]
    assert max(map(len, ours)) <= 80


def test_metrics_hold_every_model_in_every_domain_and_group(first_run, workplace):
    metrics = json.loads((workplace.run_dir / "metrics.json").read_text())
    assert set(metrics["domains"]) == {"books", "garden"}
    models = {"popularity", "sasrec", "hydra_single", "hydra_joint", "oracle"}
    for domain in metrics["domains"].values():
        assert set(domain["models"]) == models
        for figures in domain["models"].values():
            assert 0 <= figures["ndcg@10"] <= figures["hr@10"] <= 1
            low, high = figures["ci95"]["ndcg@10"]
            assert low <= figures["ndcg@10"] <= high
        best = max(figures["ndcg@10"] for figures in domain["models"].values())
        assert domain["models"]["oracle"]["ndcg@10"] == best
        delta = domain["deltas"]["hydra_joint"]
        assert delta["against"] == "hydra_single"
        assert isinstance(delta["negative_transfer"], bool)
    assert metrics["domains"]["books"]["size_group"] == "large"
    assert metrics["domains"]["garden"]["size_group"] == "small"
    assert set(metrics["groups"]["all"]) == models


@pytest.mark.faults
def test_no_secret_of_the_environment_stands_in_what_a_run_leaves(first_run, workplace):
    files = [path for path in workplace.folder.rglob("*") if path.is_file()]
    assert {"run.json", "report.html", "tracking.jsonl"} <= {path.name for path in files}
    for secret in workplace.secrets:
        assert len(secret) > 20
        assert secret not in first_run.output
        assert [path for path in files if secret.encode() in path.read_bytes()] == []


def test_metrics_hold_no_times_and_no_paths(first_run, workplace):
    text = (workplace.run_dir / "metrics.json").read_text()
    assert str(workplace.folder) not in text
    assert "seconds" not in text


def test_the_item_llm_was_trained_over_two_sharded_workers(first_run, workplace):
    llm = json.loads((workplace.run_dir / "curves.json").read_text())["item_llm"]
    assert len(llm["steps"]) == 8
    assert (llm["workers"], llm["zero_stage"]) == (2, 2)
    assert sum(llm["optimizer_elements"]) <= 1.01 * llm["optimizer_elements_unsharded"]
    assert max(llm["optimizer_elements"]) < 0.6 * llm["optimizer_elements_unsharded"]
    assert 0 < llm["mean_cosine"] < 1
    card = json.loads((workplace.run_dir / "run.json").read_text())
    assert card["adapter"]["sha256"] == llm["adapter_sha256"]
    assert card["cache"]["encoded"] == 120  # 60 items in each of two shops, no two alike


def test_the_report_is_one_page_with_everything_in_it(first_run, workplace):
    page = (workplace.run_dir / "report.html").read_text()
    card = json.loads((workplace.run_dir / "run.json").read_text())
    assert card["adapter"]["sha256"][:12] in page
    assert "garden" in page
    assert "<svg" in page
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", page)


def test_examples_and_neighbours_stand_beside_the_figures(first_run, workplace):
    examples = json.loads((workplace.run_dir / "examples.json").read_text())
    users = examples["users"]["users"]
    assert examples["users"]["model"] == "hydra_joint"
    assert [user["domain"] for user in users] == ["books", "garden"] * 5
    models = {"popularity", "sasrec", "hydra_single", "hydra_joint", "oracle"}
    assert all(set(user["ranks"]) == models for user in users)
    items = examples["neighbours"]["items"]
    assert {item["domain"] for item in items} == {"books", "garden"}
    assert all(len(item[side]) == 5 for item in items for side in ("before", "after"))
    page = (workplace.run_dir / "report.html").read_text()
    assert items[0]["after"][0]["text"] in page
    assert users[0]["top"][0]["text"] in page


def test_the_same_command_again_does_nothing(first_run, workplace):
    before = (workplace.run_dir / "metrics.json").read_bytes()
    job = workplace.submit("python", "-m", "jobs.multidomain")
    assert job.status == 0, job.output
    assert set(statuses(job.output).values()) == {"reused"}
    assert (workplace.run_dir / "metrics.json").read_bytes() == before
    # A job that does nothing at all takes Ray 8 to 10 s on two quiet cores.
    card = json.loads((workplace.run_dir / "run.json").read_text())
    assert card["seconds"] < 15


def test_the_script_itself_can_be_the_entrypoint(first_run, workplace):
    job = workplace.submit("jobs/multidomain.py")
    assert job.status == 0, job.output
    assert set(statuses(job.output).values()) == {"reused"}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (("--evaluation.bootstrap-resamples", "200"), {"metrics"}),
        (
            ("--sasrec.training.lr", "1e-3"),
            {"train.sasrec.books", "train.sasrec.garden", "rank.sasrec.books"}
            | {"rank.sasrec.garden", "metrics"},
        ),
        (
            ("--user-model.validation-users", "50"),
            {f"{step}.{model}" for step in ("train", "rank") for model in HYDRAS} | {"metrics"},
        ),
    ],
    ids=["resamples", "sasrec", "hydra"],
)
def test_a_changed_field_runs_again_only_what_depends_on_it(
    override, expected, first_run, workplace
):
    job = workplace.submit("python", "jobs/multidomain.py", *override)
    assert job.status == 0, job.output
    assert {name for name, status in statuses(job.output).items() if status == "ran"} == expected


def test_size_groups_follow_the_config_though_the_corpus_is_reused(first_run, workplace):
    job = workplace.submit("python", "jobs/multidomain.py", "--large-domains", "garden")
    assert job.status == 0, job.output
    assert statuses(job.output)["corpus"] == "reused"
    metrics = json.loads((workplace.run_dir / "metrics.json").read_text())
    data = json.loads((workplace.run_dir / "data.json").read_text())
    for found in (metrics["domains"], data["domains"]):
        assert {name: domain["size_group"] for name, domain in found.items()} == {
            "books": "small",
            "garden": "large",
        }


def test_a_frozen_encoder_never_touches_the_tuned_ones_table(first_run, workplace):
    vectors = workplace.folder / "store" / "vectors"
    before = {path: path.stat().st_mtime_ns for path in vectors.rglob("*") if path.is_file()}
    tables = {path.parent.name for path in vectors.glob("*/vectors.lance")}
    frozen = workplace.folder / "frozen.yaml"
    text = workplace.config.read_text()
    frozen.write_text(re.sub(r"  lora:\n    r: 4\n", "  lora: null\n", text))
    assert "lora: null" in frozen.read_text()
    job = workplace.ray.submit(
        [
            *("python", "jobs/multidomain.py", "--config", str(frozen)),
            *("--run-dir", str(workplace.folder / "frozen")),
            *("--models", "popularity", "hydra_joint"),
        ],
        working_dir=ROOT,
        capture=True,
    )
    assert job.returncode == 0, job.stdout
    assert "item_llm" not in statuses(job.stdout)
    data = {path: time for path, time in before.items() if path.suffix != ".lock"}
    assert data == {path: path.stat().st_mtime_ns for path in data}
    new = {path.parent.name for path in vectors.glob("*/vectors.lance")} - tables
    assert len(new) == 1
    curves = json.loads((workplace.folder / "frozen" / "curves.json").read_text())
    assert curves["item_llm"] is None


def test_make_demos_command_starts_a_ray_of_its_own(first_run, workplace):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pipeline.workers.local_ray", "--", "jobs/multidomain.py"),
            *("--config", str(workplace.config), "--run-dir", str(workplace.run_dir)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(statuses(done.stdout).values()) == {"reused"}
    assert "report: " in done.stdout
