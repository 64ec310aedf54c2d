"""The deployment examples: what can be checked without a cluster of that kind."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

import pseudolabel.pipelines.deploy
from pseudolabel.pipelines.graph import COMMANDS

DEPLOY = Path(pseudolabel.pipelines.deploy.__file__).parent
ROOT = Path(__file__).parents[2]


@pytest.fixture
def job() -> dict:
    return yaml.safe_load((DEPLOY / "kubernetes-indexed-job.yaml").read_text())


def test_the_kubernetes_job_is_indexed_and_tells_its_pods_how_many_they_are(job: dict) -> None:
    assert (job["apiVersion"], job["kind"], job["spec"]["completionMode"]) == ("batch/v1", "Job", "Indexed")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment == {"PSEUDOLABEL_NUM_SHARDS": str(job["spec"]["completions"])}
    assert job["spec"]["parallelism"] <= job["spec"]["completions"]


def test_the_kubernetes_job_obeys_the_rules_of_its_failure_policy(job: dict) -> None:
    """podFailurePolicy and backoffLimitPerIndex are refused by the API server unless pods are never restarted."""
    spec = job["spec"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert "backoffLimit" not in spec
    assert 0 < spec["maxFailedIndexes"] <= spec["completions"]
    (container,) = spec["template"]["spec"]["containers"]
    for rule in spec["podFailurePolicy"]["rules"]:
        assert rule["action"] in ("FailJob", "FailIndex", "Ignore", "Count")
        assert len({"onExitCodes", "onPodConditions"} & set(rule)) == 1
        codes = rule.get("onExitCodes", {"containerName": container["name"], "operator": "In", "values": [1]})
        assert (codes["containerName"], 0 in codes["values"]) == (container["name"], False)


def test_every_mounted_volume_is_declared_and_the_command_exists(job: dict) -> None:
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert container["args"][0] in COMMANDS


@pytest.mark.parametrize("name", ["slurm-array.sbatch", "slurm-train.sbatch", "ray-cluster.sh"])
def test_the_shell_files_parse(name: str) -> None:
    assert subprocess.run(["sh", "-n", str(DEPLOY / name)], check=False).returncode == 0


def test_the_ray_script_refuses_what_it_does_not_know() -> None:
    done = subprocess.run(["sh", str(DEPLOY / "ray-cluster.sh"), "tail"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[:6]) == (2, "usage:")


def test_the_image_copies_what_the_package_is_built_from_and_starts_the_command_itself() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = {word for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for word in line.split()[:-1]}
    missing = [name for name in copied if not (ROOT / name).exists()]
    assert (missing, copied >= {"pyproject.toml", "pseudolabel", "cli", "pipelines", "data", "README.md"}) == ([], True)
    assert 'ENTRYPOINT ["pseudolabel"]' in text
    assert "--extra-index" not in text
