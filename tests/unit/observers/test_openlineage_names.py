"""How lineage events name runs, parents, datasets and columns, and which settings are refused."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import attr
import pytest
from openlineage.client.generated import parent_run

from dictalake.config.load import load_config
from dictalake.config.locations import ASSETS
from dictalake.config.sections import Archive
from dictalake.errors import ConfigError
from dictalake.lake.schema import TRANSCRIPTS
from dictalake.observers import openlineage
from dictalake.observers.openlineage import (
    ProvenanceRunFacet,
    describe_fields,
    list_inputs,
    make_run_uuid,
    name_dataset,
    read_parent,
)
from tests.lineage_runs import PROVENANCE, RUN_ID, make_config, read_events, run

PARENT_ID, ROOT_ID = "0190f0a1-0000-7000-8000-000000000001", "0190f0a1-0000-7000-8000-000000000002"


def test_the_run_that_started_this_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(openlineage.PARENT, f"airflow://prod/eu/night.transcribe/{PARENT_ID}")
    monkeypatch.setenv(openlineage.ROOT, f"airflow://prod/eu/night/{ROOT_ID}")
    config = make_config(tmp_path)
    with run(config):
        pass
    for event in read_events(config).values():
        facet = event["run"]["facets"]["parent"]
        assert (facet["run"]["runId"], facet["root"]["run"]["runId"]) == (PARENT_ID, ROOT_ID)
        assert (facet["job"]["namespace"], facet["job"]["name"]) == ("airflow://prod/eu", "night.transcribe")
        assert (facet["root"]["job"]["namespace"], facet["root"]["job"]["name"]) == ("airflow://prod/eu", "night")


@pytest.mark.parametrize("text", ["", "night", f"night/{PARENT_ID}", "airflow/night/yesterday", f"/night/{PARENT_ID}"])
def test_a_parent_of_another_form_is_left_out(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(openlineage.PARENT, text)
    assert read_parent() is None
    monkeypatch.setenv(openlineage.PARENT, f"airflow/night/{PARENT_ID}")
    monkeypatch.setenv(openlineage.ROOT, text)
    assert read_parent() == parent_run.ParentRunFacet(parent_run.Run(PARENT_ID), parent_run.Job("airflow", "night"))


def test_the_uuid_of_a_run_is_always_the_same_and_in_order_of_time() -> None:
    first, second = (UUID(make_run_uuid(run_id)) for run_id in (RUN_ID, "20260301T013001-000000"))
    assert first.version == 7
    assert first < second
    assert str(first) == make_run_uuid(RUN_ID) != make_run_uuid("20260301T013000-abcde0")
    milliseconds = first.int >> 80
    assert datetime.fromtimestamp(milliseconds / 1000, UTC) == datetime(2026, 3, 1, 1, 30, tzinfo=UTC) + timedelta(0)


@pytest.mark.parametrize(
    ("location", "namespace", "name"),
    [
        ("gs://hospital/dictations/2026/", "gs://hospital", "dictations/2026"),
        ("gcs://hospital", "gs://hospital", "/"),
        ("gs://b/2026#1/x", "gs://b", "2026#1/x"),
        ("s3://b/what?/100%25/a%20b", "s3://b", "what?/100%25/a%20b"),
        ("az://b/2026#1?", "az://b", "2026#1?"),
        ("s3a://key:word@hospital/a%20b", "s3://hospital", "a%20b"),
        ("/data/archive", "file", "/data/archive"),
        ("file:///data/a%20b", "file", "/data/a b"),
        ("file://filer/data", "file://filer", "/data"),
        ("abfs://voices@hospital.dfs.core.windows.net/in", "abfs://voices@hospital.dfs.core.windows.net", "in"),
        ("https://me:word@files.example/in?token=canary", "https://files.example", "in"),
        ("HTTPS://files.example/a%20b#canary", "https://files.example", "a b"),
        ("embedded:demo-archive", "file", str(ASSETS / "demo-archive")),
    ],
)
def test_places_are_named_as_the_standard_names_them(location: str, namespace: str, name: str) -> None:
    named = name_dataset(location)
    assert (named.get_namespace(), named.get_name()) == (namespace, name)


def test_a_relative_path_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert name_dataset("./archive").get_name() == str(tmp_path / "archive")


@pytest.mark.parametrize(
    ("archive", "inputs"),
    [
        ({"uri": "gs://b/in"}, ["gs://b/in"]),
        ({"uri": "gs://b/in", "manifest": "list.csv"}, ["list.csv", "gs://b/in"]),
        ({"uri": "embedded:demo-archive/recordings", "manifest": "list.csv"}, ["list.csv"]),
        ({"uri": "s3://b/in", "inventory": "s3://i/manifest.json"}, ["s3://i/manifest.json", "s3://b/in"]),
    ],
)
def test_what_finds_the_recordings_is_an_input(archive: dict[str, Any], inputs: list[str]) -> None:
    assert list_inputs(Archive.model_validate(archive)) == inputs


def test_the_schema_has_every_column_with_its_words() -> None:
    fields = describe_fields(TRANSCRIPTS)
    assert [field.name for field in fields] == TRANSCRIPTS.names
    assert [field.ordinal_position for field in fields] == list(range(1, len(TRANSCRIPTS) + 1))
    assert not [field.name for field in fields if not field.description]
    words, metadata = (next(field for field in fields if field.name == name) for name in ("words", "metadata"))
    assert words.type == "array"
    (element,) = words.fields or ()
    assert (element.name, element.type) == ("_element", "struct")
    assert [(one.name, one.type) for one in element.fields or ()][:2] == [("word", "string"), ("start_s", "double")]
    assert [(one.name, one.type) for one in metadata.fields or ()] == [("key", "string"), ("value", "string")]


def test_the_facet_of_ours_has_a_field_for_every_value_of_the_provenance() -> None:
    names = {field.name for field in attr.fields(ProvenanceRunFacet) if not field.name.startswith("_")}
    assert names == set(asdict(PROVENANCE)) - {"versions", "parts", "named", "spelling"} | {"config_hash"}


def test_off_may_be_written_as_yaml_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "quiet.yaml"
    file.write_text("lineage:\n  kind: off\n", encoding="utf-8")
    assert load_config(None, [("lineage.kind", "off")], {}).lineage.kind == "off"
    assert load_config(str(file), [], {}).lineage.kind == "off"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ([("lineage.kind", "http")], "kind is http and server is missing: give lineage.server"),
        ([("lineage.server", "marquez:5000")], "must be a URL such as http://marquez:5000"),
        ([("lineage.server", "http://me:word@marquez:5000")], "must hold no user name, password or query"),
        ([("lineage.namespace", "")], "lineage.namespace"),
        ([("lineage.kind", "kafka")], "lineage.kind = 'kafka' from the command line"),
    ],
)
def test_a_bad_value_is_refused_before_a_run(settings: list[tuple[str, str]], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(None, settings, {})
