"""Compares infra/ and jobs/ with the code that they run: commands, keys, versions and exit codes. Needs no cluster and none of
the tools of `make lint-infra`."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dictalake.cli.main import COMMANDS, EXIT_BAD_CONFIG, EXIT_OK, EXIT_RUN_FAILED, EXIT_SOME_FAILED, make_command_parser
from dictalake.config.load import list_keys, load_config
from dictalake.config.sections import Config

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MANIFESTS = sorted((INFRA / "kubernetes").glob("**/*.yaml"))
CONFIG_FOLDER = "/etc/dictalake"

Document = dict[str, Any]


def read_all() -> list[Document]:
    return [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def of_kind(kind: str) -> list[Document]:
    return [document for document in read_all() if document["kind"] == kind]


def find(kind: str, name: str) -> Document:
    return next(document for document in of_kind(kind) if document["metadata"]["name"] == name)


def pod_templates() -> Iterator[tuple[str, Document]]:
    """Every pod that the manifests can start."""
    for cron_job in of_kind("CronJob"):
        yield cron_job["metadata"]["name"], cron_job["spec"]["jobTemplate"]["spec"]["template"]
    for ray_job in of_kind("RayJob"):
        cluster = ray_job["spec"]["rayClusterSpec"]
        yield "submitter", ray_job["spec"]["submitterPodTemplate"]
        yield "head", cluster["headGroupSpec"]["template"]
        for group in cluster["workerGroupSpecs"]:
            yield group["groupName"], group["template"]


def commands() -> Iterator[tuple[str, list[str]]]:
    """The arguments of ``dictalake`` wherever infra/ calls it."""
    for cron_job in of_kind("CronJob"):
        container = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
        yield cron_job["metadata"]["name"], container["args"]
    for ray_job in of_kind("RayJob"):
        yield ray_job["metadata"]["name"], shlex.split(ray_job["spec"]["entrypoint"])[1:]
    # In the README's code blocks; a command ends with its line unless that ends with a backslash.
    blocks = "\n".join(re.findall(r"```\w*\n(.*?)```", (INFRA / "README.md").read_text(encoding="utf-8"), re.S))
    for line in blocks.replace("\\\n", " ").splitlines():
        if found := re.search(r"(?:^|-- )dictalake(?:-on-ray)? (.+)", line.strip()):
            yield "README.md", shlex.split(found[1], comments=True)


def shared_config(tmp_path: Path) -> Config:
    path = tmp_path / "dictalake.yaml"
    path.write_text(find("ConfigMap", "dictalake")["data"]["dictalake.yaml"], encoding="utf-8")
    return load_config(path, environment={})


PODS = dict(pod_templates())
CALLS = list(commands())


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_every_document_of_a_manifest_says_what_it_is_and_is_applied_by_a_kustomization(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        assert {"apiVersion", "kind"} <= set(document)
        if document["kind"] != "Kustomization":
            listed = yaml.safe_load((path.parent / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
            assert path.name in listed


@pytest.mark.parametrize(("where", "arguments"), CALLS, ids=[f"{where}-{a[0]}" for where, a in CALLS])
def test_a_command_names_a_job_and_keys_that_exist(where: str, arguments: list[str]) -> None:
    assert arguments[0] in COMMANDS
    options = make_command_parser(arguments[0]).parse(arguments[1:])
    assert {key for key, _ in options.overrides} <= {key.name for key in list_keys()}
    assert options.config in (None, "medasr", f"{CONFIG_FOLDER}/dictalake.yaml")


def test_the_shared_configuration_is_accepted_and_says_where_to_read_and_write(tmp_path: Path) -> None:
    config = shared_config(tmp_path)
    assert config.archive.uri == "gs://my-hospital-dictations"
    assert config.lake.uri == "gs://my-hospital-lake/speech"
    assert config.acoustic.device == "cuda"
    assert config.ray.address is None, "only the backfill joins a cluster; nightly starts its own"


def secrets_of(container: Document) -> set[str]:
    return {entry["name"] for entry in container.get("env", ()) if "valueFrom" in entry}


def test_secrets_come_by_reference_and_to_the_containers_that_need_them_alone() -> None:
    for name, pod in PODS.items():
        [container], first = pod["spec"]["containers"], pod["spec"].get("initContainers", [])
        works = name in ("nightly", "head", "gpu", "cpu")
        # The token stays out of the container that opens recordings, and the key out of the one that talks to the hub.
        assert secrets_of(container) == ({"DICTALAKE_PATIENT_KEY"} if works else set())
        assert [secrets_of(one) for one in first] == ([{"HF_TOKEN"}] if works else [])
        for one in [container, *first]:
            for entry in one.get("env", ()):
                assert entry.get("value") == "1" if entry["name"] == "HF_HUB_OFFLINE" else "secretKeyRef" in entry["valueFrom"]
    assert not of_kind("Secret")


def test_the_model_is_fetched_to_where_the_run_looks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the code of the init container, with the embedded model in place of the hub's."""
    for name in ("nightly", "head", "gpu", "cpu"):
        [first], [container] = PODS[name]["spec"]["initContainers"], PODS[name]["spec"]["containers"]
        assert {entry["name"] for entry in container["env"]} >= {"HF_HUB_OFFLINE"}
        mounts = [{(one["name"], one["mountPath"]) for one in of["volumeMounts"]} for of in (first, container)]
        assert ("tmp", "/tmp") in mounts[0] & mounts[1], "HF_HOME is there"
        assert ("config", CONFIG_FOLDER) in mounts[0]
        assert {volume["name"] for volume in PODS[name]["spec"]["volumes"]} >= {"tmp", "config"}
        program, option = first["command"]
        assert (program, option) == ("python", "-c")
        (tmp_path / "dictalake.yaml").write_text("acoustic: {model: 'embedded:medasr-mini'}")
        code = first["args"][0].replace(CONFIG_FOLDER, str(tmp_path))
        assert code != first["args"][0]
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_network_lets_each_pod_reach_what_it_needs_and_no_more() -> None:
    policies = {document["metadata"]["name"]: document["spec"] for document in of_kind("NetworkPolicy")}
    submitter = PODS["submitter"]["metadata"]["labels"]

    def selects(selector: Document, labels: dict[str, str]) -> bool:
        named = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
        return named and all(labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", ()))

    def reach(labels: dict[str, str]) -> set[int]:
        found = [spec["egress"] for spec in policies.values() if "egress" in spec and selects(spec["podSelector"], labels)]
        return {port["port"] for rules in found for rule in rules for port in rule.get("ports", ())}

    assert reach(submitter) - {9091} == {53, 8265}
    for name in ("nightly", "compact"):
        assert reach(PODS[name]["metadata"]["labels"]) - {9091} == {53, 80, 988, 443}
    for name in ("head", "gpu", "cpu"):
        assert reach(PODS[name]["metadata"]["labels"]) - {9091} == {53, 80, 988, 443}
        assert selects(policies["ray-cluster"]["podSelector"], PODS[name]["metadata"]["labels"])


def test_names_are_found_with_each_of_the_kinds_of_dns_of_gke() -> None:
    [rule] = next(
        document["spec"]["egress"] for document in of_kind("NetworkPolicy") if document["metadata"]["name"] == "names"
    )
    blocks = {place["ipBlock"]["cidr"] for place in rule["to"] if "ipBlock" in place}
    assert blocks == {"169.254.20.10/32", "169.254.169.254/32"}
    assert {(port["protocol"], port["port"]) for port in rule["ports"]} == {("UDP", 53), ("TCP", 53)}


def test_prometheus_reaches_the_numbers_of_the_driver(tmp_path: Path) -> None:
    metrics = shared_config(tmp_path).metrics
    assert (metrics.port, metrics.address) == (9309, "0.0.0.0")


def test_the_ray_of_the_manifest_is_the_ray_that_is_installed_in_the_image() -> None:
    pinned = next(d for d in PROJECT["dependencies"] if d.startswith("ray["))
    version = find("RayJob", "backfill")["spec"]["rayClusterSpec"]["rayVersion"]
    assert f">={version.rpartition('.')[0]}" in pinned
    assert f"ray=={version}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def test_all_pods_run_one_image_pinned_to_this_version() -> None:
    containers = [one for pod in PODS.values() for one in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", ()))]
    images = {container["image"] for container in containers}
    assert len(images) == 1
    assert images.pop().rpartition(":")[2] == PROJECT["version"]
    bases = re.findall(r"^FROM (\S+)", (INFRA / "Dockerfile").read_text(encoding="utf-8"), re.M)
    assert re.fullmatch(r"python:3\.1[12]\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", bases[0])
    assert set(bases[1:]) == {"base"}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_has_no_rights_that_it_does_not_need(name: str) -> None:
    spec = PODS[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert spec["automountServiceAccountToken"] is False
    accounts = {account["metadata"]["name"] for account in of_kind("ServiceAccount")}
    assert spec["serviceAccountName"] in accounts
    [container] = spec["containers"]
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"]
    assert not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}, "Ray and the caches write there"


@pytest.mark.parametrize("name", ["nightly", "compact"])
def test_a_cron_job_tries_again_what_may_pass_and_nothing_else(name: str) -> None:
    spec = find("CronJob", name)["spec"]
    job = spec["jobTemplate"]["spec"]
    reclaimed, ended = job["podFailurePolicy"]["rules"]
    assert reclaimed == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert ended["action"] == "FailJob"
    assert ended["onExitCodes"]["values"] == sorted([EXIT_BAD_CONFIG, EXIT_SOME_FAILED])
    assert EXIT_RUN_FAILED not in ended["onExitCodes"]["values"]
    pod = job["template"]["spec"]
    assert ended["onExitCodes"]["containerName"] == pod["containers"][0]["name"]
    assert pod["restartPolicy"] == "Never", "Kubernetes takes a podFailurePolicy with no other"
    assert job["backoffLimit"] > 0
    assert spec["concurrencyPolicy"] == "Forbid"
    assert job["activeDeadlineSeconds"] < 86_400, "one that hangs would keep Forbid from ever starting another"


@pytest.mark.parametrize(
    ("code", "told"),
    [(EXIT_OK, 0), (EXIT_SOME_FAILED, 0), (EXIT_BAD_CONFIG, 2), (EXIT_RUN_FAILED, 1), (137, 137)],
)
def test_ray_is_told_that_a_run_with_failed_recordings_succeeded_and_of_every_other_code(
    tmp_path: Path, code: int, told: int
) -> None:
    program = tmp_path / "dictalake"
    program.write_text(f'#!/bin/sh\necho "$@"\nexit {code}\n', encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    command = [str(INFRA / "dictalake-on-ray"), "backfill", "--archive.include", "a b*"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == told
    assert done.stdout.splitlines()[0] == "backfill --archive.include a b*"


def test_the_backfill_survives_its_head_and_gives_its_machines_back() -> None:
    spec = find("RayJob", "backfill")["spec"]
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"]
    assert shlex.split(spec["entrypoint"])[0] == "dictalake-on-ray"
    head = spec["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "cloud.google.com/gke-spot" not in head["template"]["spec"]["nodeSelector"]
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
        # The plan is made once, for the workers that are there at the start: without Ray's autoscaler these must be equal.
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]


def bytes_of(quantity: str) -> float:
    return float(quantity.removesuffix("Gi")) * 2**30


@pytest.mark.parametrize("group", ["head", "gpu", "cpu"])
def test_what_ray_gives_away_fits_into_the_pod(group: str) -> None:
    cluster = find("RayJob", "backfill")["spec"]["rayClusterSpec"]
    spec = next((g for g in cluster["workerGroupSpecs"] if g["groupName"] == group), cluster["headGroupSpec"])
    given = {key: float(value) for key, value in spec["rayStartParams"].items() if value.isdigit()}
    pod = spec["template"]["spec"]
    limits = pod["containers"][0]["resources"]["limits"]
    assert given["num-cpus"] <= float(limits["cpu"])
    assert given.get("num-gpus", 0) == float(limits.get("nvidia.com/gpu", 0))
    assert given["memory"] + given["object-store-memory"] <= 0.95 * bytes_of(limits["memory"])
    shm = next(volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "shm")
    assert given["object-store-memory"] <= bytes_of(shm["sizeLimit"])


def test_the_plan_for_the_backfills_cluster_fits_with_a_model_on_every_gpu(tmp_path: Path) -> None:
    from dictalake.workflow.plan import Node, Resources, make_plan

    nodes = []
    for group in find("RayJob", "backfill")["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        given = group["rayStartParams"]
        node = Node(float(given["num-cpus"]), float(given.get("num-gpus", 0)), float(given["memory"]) / 1e6)
        nodes += [node] * group["replicas"]
    cpus, gpus, memory_mb = (sum(values) for values in zip(*(node[:3] for node in nodes), strict=True))
    plan = make_plan(shared_config(tmp_path), Resources(cpus, gpus, tuple(nodes), memory_mb))
    assert plan.emit.workers == gpus == 4


def test_the_identities_of_the_manifests_are_those_that_terraform_makes() -> None:
    terraform = (INFRA / "terraform" / "identities.tf").read_text(encoding="utf-8")
    for account in of_kind("ServiceAccount"):
        name = account["metadata"]["name"]
        assert re.search(rf"^    {name} +=", terraform, re.M)
        assert account["metadata"]["annotations"]["iam.gke.io/gcp-service-account"].startswith(f"{name}@")
    assert PODS["compact"]["spec"]["serviceAccountName"] == "dictalake-maintain"


@pytest.mark.parametrize("name", ["backfill", "nightly", "compact"])
def test_a_job_of_a_checkout_is_the_command_of_its_name(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"jobs.{name}", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"dictalake {name}" in done.stdout
    command = [sys.executable, "-m", f"jobs.{name}", "--lake.nonsense", "1"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == EXIT_BAD_CONFIG


@pytest.mark.parametrize(("code", "told"), [(EXIT_OK, 0), (EXIT_SOME_FAILED, 0), (EXIT_BAD_CONFIG, 2), (EXIT_RUN_FAILED, 1)])
def test_the_backfill_job_reports_failed_recordings_as_success(code: int, told: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dictalake.cli.main.main", lambda argv: code)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("jobs.backfill", run_name="__main__")
    assert ended.value.code == told


def test_scripts_call_the_installed_command() -> None:
    for path in (INFRA / "evaluation_set.sh", ROOT / "jobs/train_medasr_mini.sh", INFRA / "Dockerfile"):
        text = path.read_text(encoding="utf-8")
        assert "python -m jobs" not in text
        assert set(re.findall(r"\bdictalake ([a-z]+(?:-[a-z]+)*)\b", text)) <= {*COMMANDS, "as"}
    kept = (INFRA / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    copied = {line[1:].rstrip("/") for line in kept if line.startswith("!")}
    assert all((ROOT / name).exists() for name in copied)
    assert {"pipelines", "conf", "pyproject.toml", "README.md"} <= copied, "what a wheel is built from"


def test_the_dockerfile_removes_files_from_the_folder_of_its_python() -> None:
    dockerfile = (INFRA / "Dockerfile").read_text(encoding="utf-8")
    (python,) = set(re.findall(r"^FROM python:(3\.\d+)\.", dockerfile, re.M))
    assert f"WORKDIR /opt/dictalake/lib/python{python}/site-packages\nRUN rm -rf " in dockerfile
