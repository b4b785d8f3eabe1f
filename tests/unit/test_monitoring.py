"""infra/monitoring against the code: what the dashboard and the alert rules ask for is there, in PromQL that parses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from dictalake.observers.prometheus import GpuCollector, RunCollector, SuccessCollector
from dictalake.observers.stats import FailureKind, RunStats
from tests.unit.observers.test_prometheus import PROVENANCE

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "infra/monitoring"
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))
OF_RAY = yaml.safe_load((MONITORING / "ray-metrics.yaml").read_text(encoding="utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
PROCESS = {"process_resident_memory_bytes"}
GRAFANA = {"$command": "backfill|nightly", "$__rate_interval": "2m"}
RUN_LABELS = {"command", "run_id", "fingerprint", "version", "status", "stage", "reason", "gpu"}
OF_SCRAPING = {"instance", "job", "pod"}


def queries() -> Iterator[tuple[str, str]]:
    """Where from, and PromQL with Grafana's variables filled in."""
    for panel in PANELS:
        for target in panel["targets"]:
            query = target["expr"]
            for variable, value in GRAFANA.items():
                query = query.replace(variable, value)
            yield panel["title"], query
    for rule in RULES:
        yield rule["alert"], rule["expr"]


def selectors(query: str) -> Iterator[Any]:
    """The vector selectors of a query."""
    found: list[Any] = []

    def visit(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        if isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)
        return True

    promql_parser.walk(promql_parser.parse(query), visit)
    yield from found


def ours() -> dict[str, set[str]]:
    """Sample name → labels, for a run that has a value for every metric."""
    stats = RunStats(wanted=3, ok=1, failed=1, last_commit_at=5.0)
    stats.failures[FailureKind("not_audio", "load")] = 1
    stats.stage_s["load"] = 1.0
    run = RunCollector("backfill", stats)
    run.provenance = PROVENANCE
    run.end(0)
    families = [*run.collect(), *SuccessCollector("backfill", 5.0).collect()]
    names = {sample.name: set(sample.labels) for family in families for sample in family.samples}
    [gpu] = GpuCollector().collect()
    return names | {gpu.name: {"gpu"}}


QUERIES = list(queries())


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_a_query_parses_and_asks_for_metrics_that_there_are(where: str, query: str) -> None:
    known = ours()
    asked = list(selectors(query))
    assert asked, "a query without a metric"
    for selector in asked:
        assert selector.name in known or selector.name in PROCESS or selector.name in OF_RAY["seen"] + OF_RAY["of_the_source"]
        if selector.name in known:
            assert {matcher.name for matcher in selector.matchers.matchers} <= known[selector.name] | OF_SCRAPING


def test_the_parser_refuses_what_is_not_promql() -> None:
    with pytest.raises(ValueError, match="invalid promql"):
        promql_parser.parse("sum by (stage rate(dictalake_stage_seconds_total[5m]))")


def test_what_is_said_of_rays_metrics_is_of_the_ray_that_is_pinned_and_all_of_it_is_used() -> None:
    assert f"ray=={OF_RAY['ray']}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    used = {selector.name for _, query in QUERIES for selector in selectors(query)}
    assert set(OF_RAY["seen"] + OF_RAY["of_the_source"]) == {name for name in used if name.startswith("ray_")}


def test_every_metric_of_a_run_but_its_end_is_on_the_dashboard_or_in_a_rule() -> None:
    used = {selector.name for _, query in QUERIES for selector in selectors(query)}
    assert set(ours()) - used == {"dictalake_run_end_time_seconds"}


def test_panels_have_ids_of_their_own_places_of_their_own_and_the_chosen_datasource() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in PANELS:
        chosen = {json.dumps(source) for source in (panel["datasource"], *(t["datasource"] for t in panel["targets"]))}
        assert chosen == {json.dumps({"type": "prometheus", "uid": "${datasource}"})}
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "command"}
    variables = set(re.findall(r"\$(?!\{?datasource)\{?(\w+)", " ".join(t["expr"] for p in PANELS for t in p["targets"])))
    assert variables == {"command", "__rate_interval"}


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_where_to_read_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    path, _, fragment = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^###? (.+)$", (ROOT / path).read_text(encoding="utf-8"), re.M)
    assert fragment in {anchor(heading) for heading in headings}


def test_every_page_on_what_to_do_is_of_an_alert() -> None:
    text = (ROOT / "infra/README.md").read_text(encoding="utf-8")
    pages = re.search(r"^## When an alert fires$(.*?)^## ", text, re.M | re.S)
    assert pages is not None
    headings = {anchor(heading) for heading in re.findall(r"^### (.+)$", pages[1], re.M)}
    assert headings == {rule["annotations"]["runbook"].partition("#")[2] for rule in RULES}


def test_indented_the_rules_are_the_spec_of_a_prometheus_rule() -> None:
    indented = "".join(
        f"  {line}" for line in (MONITORING / "alerts.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    )
    assert yaml.safe_load(f"spec:\n{indented}") == {"spec": ALERTS}


def test_every_alert_has_a_test_of_its_rule() -> None:
    tests = yaml.safe_load((MONITORING / "alerts.test.yaml").read_text(encoding="utf-8"))["tests"]
    fired = {check["alertname"] for test in tests for check in test["alert_rule_test"] if check["exp_alerts"]}
    assert fired == {rule["alert"] for rule in RULES}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is in Debian's package prometheus")
def test_the_rules_fire_when_they_should_and_not_before() -> None:
    command = ["promtool", "test", "rules", str(MONITORING / "alerts.test.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_prometheus_reaches_the_ports_that_the_pods_name() -> None:
    manifests = [
        document
        for path in (ROOT / "infra/kubernetes").glob("**/*.yaml")
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]
    [ray_job] = [m for m in manifests if m["kind"] == "RayJob"]
    [nightly] = [m for m in manifests if m["kind"] == "CronJob" and m["metadata"]["name"] == "nightly"]
    cluster = ray_job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    templates = [*(group["template"] for group in groups), nightly["spec"]["jobTemplate"]["spec"]["template"]]
    named = {p["name"]: p["containerPort"] for t in templates for p in t["spec"]["containers"][0].get("ports", [])}
    [config] = [m for m in manifests if m["kind"] == "ConfigMap"]
    assert yaml.safe_load(config["data"]["dictalake.yaml"])["metrics"]["port"] == named["driver"]
    monitors = [m for m in manifests if m["kind"] == "PodMonitor"]
    asked = {endpoint["port"] for monitor in monitors for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    assert asked == {"metrics", "driver"}
    [policy] = [m for m in manifests if m["kind"] == "NetworkPolicy" and m["metadata"]["name"] == "prometheus"]
    assert {port["port"] for port in policy["spec"]["ingress"][0]["ports"]} == {named[name] for name in asked}
    labels = [template["metadata"]["labels"].items() for template in templates]
    for monitor in monitors:
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        assert any(wanted <= of_pod for of_pod in labels)
