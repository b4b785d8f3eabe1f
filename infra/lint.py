"""Checks infra/ as far as it can be without Docker, a cluster, Terraform or a network: `make lint-infra`.

Kubernetes' own schemas (kubernetes-validate), our subsets of KubeRay's and the Prometheus operator's (kubernetes/schemas), the
references between Terraform
files, hadolint, and checkov's policies over all of it. Runs in an environment of its own, see requirements-lint.txt.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hcl2
import jsonschema
import kubernetes_validate
import yaml

INFRA = Path(__file__).parent
KUBERNETES = "1.35"
SUBSETS = {"ray.io": "rayjob.json", "monitoring.coreos.com": "podmonitor.json"}
FRAMEWORKS = ("dockerfile", "kubernetes", "terraform", "secrets")
Document = dict[str, Any]


def main() -> int:
    documents = [(path, document) for path in sorted(INFRA.glob("kubernetes/**/*.yaml")) for document in read_yaml(path)]
    problems = [
        *check_manifests(documents),
        *check_references(INFRA / "terraform"),
        *check_dockerfile(),
        *check_policies([document for _, document in documents]),
    ]
    for problem in problems:
        print(f"infra: {problem}", file=sys.stderr)
    return 1 if problems else 0


def read_yaml(path: Path) -> list[Document]:
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


# Kubernetes


def check_manifests(documents: list[tuple[Path, Document]]) -> Iterator[str]:
    """Every document against the schema of its kind; unknown fields are refused."""
    schemas = {
        group: json.loads((INFRA / "kubernetes/schemas" / name).read_text(encoding="utf-8")) for group, name in SUBSETS.items()
    }
    counted = 0
    for path, document in documents:
        where = f"{path.relative_to(INFRA)}: {document.get('kind')} {document.get('metadata', {}).get('name', '')}".rstrip()
        if document.get("kind") == "Kustomization":
            for name in document.get("resources", []):
                if not (path.parent / name).exists():
                    yield f"{where}: {name} does not exist"
            continue
        counted += 1
        group = document.get("apiVersion", "").partition("/")[0]
        if group in schemas:
            schema = schemas[group]
            for error in jsonschema.Draft202012Validator(schema).iter_errors(document):
                yield f"{where}: {'.'.join(map(str, error.path))}: {error.message[:300]}"
            for name, template in pod_templates(document):
                wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name}, "template": template}
                yield from validate(wrapped, f"{where}, {name}")
        else:
            yield from validate(document, where)
    if not counted:
        yield "no manifests found"
    print(f"infra: {counted} manifests against the schemas of Kubernetes {KUBERNETES} and our subsets of others'")


def validate(document: Document, where: str) -> Iterator[str]:
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{where}: {'.'.join(map(str, error.path))}: {error.message[:300]}"
    except kubernetes_validate.SchemaNotFoundError as error:
        yield f"{where}: {error.message}"


def pod_templates(ray_job: Document) -> Iterator[tuple[str, Document]]:
    spec = ray_job.get("spec", {})
    if "submitterPodTemplate" in spec:
        yield "submitter", spec["submitterPodTemplate"]
    cluster = spec.get("rayClusterSpec", {})
    groups = [
        ("head", cluster.get("headGroupSpec", {})),
        *((g.get("groupName", ""), g) for g in cluster.get("workerGroupSpecs", [])),
    ]
    for name, group in groups:
        if "template" in group:
            yield name, group["template"]


# Terraform


def check_references(folder: Path) -> Iterator[str]:
    """What `terraform validate` would find first: syntax, names that nothing declares, variables that nothing reads."""
    declared: set[str] = set()
    variables: set[str] = set()
    text = ""
    for path in sorted(folder.glob("*.tf")):
        source = path.read_text(encoding="utf-8")
        text += re.sub(r"(?m)(^|\s)#.*$", "", source)
        try:
            with path.open(encoding="utf-8") as file:
                parsed = hcl2.load(file)
        except Exception as error:  # the parser raises errors of lark, of many classes
            yield f"terraform/{path.name}: not HCL: {str(error).splitlines()[0]}"
            continue
        for block in parsed.get("variable", []):
            variables |= set(block)
            declared |= {f"var.{name}" for name in block}
        for block in parsed.get("locals", []):
            declared |= {f"local.{name}" for name in block}
        for kind, prefix in (("resource", ""), ("data", "data.")):
            for block in parsed.get(kind, []):
                declared |= {f"{prefix}{type_}.{name}" for type_, names in block.items() for name in names}
    if not declared:
        yield "terraform: nothing declared"
    used = set(re.findall(r"(?<![\w.])((?:var|local|data\.google_\w+|google_\w+)\.\w+)", text))
    yield from (f"terraform: {name} is used and not declared" for name in sorted(used - declared))
    yield from (f"terraform: var.{name} is declared and not used" for name in sorted(variables) if f"var.{name}" not in used)
    values = re.findall(r"(?m)^(\w+)\s*=", (folder / "terraform.tfvars.example").read_text(encoding="utf-8"))
    yield from (
        f"terraform: terraform.tfvars.example sets {name}, which is no variable" for name in values if name not in variables
    )
    print(f"infra: {len(declared)} declarations of Terraform, {len(used)} references to them")


# Docker


def check_dockerfile() -> Iterator[str]:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, "--no-color", "Dockerfile"], cwd=INFRA, capture_output=True, text=True, check=False)
    if found.returncode:
        yield from (found.stdout + found.stderr).strip().splitlines() or ["hadolint failed without a word"]
    print("infra: hadolint over the Dockerfile")


# Policies


def check_policies(documents: list[Document]) -> Iterator[str]:
    """checkov, and its word that it read everything: by itself it passes files over that it cannot parse."""
    checkov = Path(sys.executable).with_name("checkov")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("kubernetes", "terraform"):
            shutil.copytree(INFRA / part, folder / part, ignore=shutil.ignore_patterns(".terraform"))
        shutil.copy(INFRA / "Dockerfile", folder)
        # checkov does not know the pods inside RayJobs: they are shown to it as pods, beside the network policies for them.
        for ray_job in (document for document in documents if document.get("kind") == "RayJob"):
            for name, template in pod_templates(ray_job):
                metadata = {
                    **template.get("metadata", {}),
                    "name": f"rayjob-{name}",
                    "namespace": ray_job["metadata"]["namespace"],
                }
                pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
                (folder / "kubernetes" / f"rayjob-{name}.yaml").write_text(yaml.safe_dump(pod), encoding="utf-8")
        found = subprocess.run(
            [
                checkov,
                "--directory",
                folder,
                "--framework",
                *FRAMEWORKS,
                "--skip-download",
                "--quiet",
                "--compact",
                "-o",
                "json",
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LOG_LEVEL": "ERROR"},
        )
    try:
        reports = json.loads(found.stdout)
    except ValueError:
        yield f"checkov failed: {(found.stdout + found.stderr).strip()[-2000:]}"
        return
    reports = reports if isinstance(reports, list) else [reports]
    counts = dict.fromkeys(("passed", "failed", "skipped"), 0)
    for report in reports:
        for key in counts:
            counts[key] += report["summary"][key]
        for file in report["results"].get("parsing_errors", []):
            yield f"checkov cannot read {file}"
        for check in report["results"]["failed_checks"]:
            lines = "-".join(map(str, check["file_line_range"]))
            yield f"{check['check_id']} {check['check_name']}: {check['resource']} ({check['file_path'].lstrip('/')}:{lines})"
    seen = {report["check_type"] for report in reports if report["summary"]["passed"]}
    yield from (f"checkov found nothing to check for {name}" for name in FRAMEWORKS if name not in seen and name != "secrets")
    numbers = ", ".join(f"{count} {key}" for key, count in counts.items())
    print(f"infra: checkov: {numbers} (each skip has its reason beside it)")


if __name__ == "__main__":
    sys.exit(main())
