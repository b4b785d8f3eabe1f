"""What a run tells of its lineage: events that OpenLineage's own classes take back, in a folder of the lake or to a server."""

from __future__ import annotations

import io
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import attr
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from openlineage.client import facet_v2
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.generated import parent_run
from openlineage.client.serde import Serde
from rich.console import Console

from dictalake.config.load import load_config
from dictalake.config.locations import ASSETS
from dictalake.config.sections import Archive, Config
from dictalake.errors import ConfigError, InternalError, RunError
from dictalake.lake import table
from dictalake.lake.runs import RunLog, describe_config
from dictalake.lake.schema import TRANSCRIPTS
from dictalake.lake.staged_files import StagedFile, write_staged
from dictalake.lake.table import CommitResult, TranscriptTable
from dictalake.logs import console_handler
from dictalake.observers import openlineage
from dictalake.observers.base import RunStart, observing
from dictalake.observers.openlineage import (
    LineageEmitter,
    ProvenanceRunFacet,
    describe_fields,
    list_inputs,
    make_run_uuid,
    name_dataset,
    read_parent,
)
from dictalake.observers.stats import RunStats
from dictalake.transcript.provenance import Provenance
from dictalake.workflow.summary import start_record
from dictalake.workflow.worklist import Counts
from tests.lake_rows import make_rows

RUN_ID = "20260301T013000-abcdef"
PROVENANCE = Provenance(
    run_id=RUN_ID,
    fingerprint="0123456789ab",
    acoustic_hash="a" * 64,
    decoding_hash="d" * 64,
    formatting_hash="f" * 64,
    pipeline_version="0.1.0",
    git_commit="c" * 40,
    model_id="medasr-mini",
    model_revision=None,
    model_sha256="5" * 64,
    lm_sha256=None,
    decoder="greedy",
    versions={"ray": "2.60.0", "torch": "2.13.0"},
)
Told = list[tuple[str, str | None, dict[str, Any]]]

# The client's class of each facet that a run tells. They refuse a key that the standard does not have, and a missing one.
FACETS: dict[str, type[Any]] = {
    "processing_engine": facet_v2.processing_engine_run.ProcessingEngineRunFacet,
    "errorMessage": facet_v2.error_message_run.ErrorMessageRunFacet,
    "dictalake_provenance": ProvenanceRunFacet,
    "jobType": facet_v2.job_type_job.JobTypeJobFacet,
    "storage": facet_v2.storage_dataset.StorageDatasetFacet,
    "datasetType": facet_v2.dataset_type_dataset.DatasetTypeDatasetFacet,
    "version": facet_v2.dataset_version_dataset.DatasetVersionDatasetFacet,
    "schema": facet_v2.schema_dataset.SchemaDatasetFacet,
    "inputStatistics": facet_v2.input_statistics_input_dataset.InputStatisticsInputDatasetFacet,
    "outputStatistics": facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
}


def make_config(tmp_path: Path, **settings: Any) -> Config:
    archive = {"uri": "gs://hospital/dictations", "storage_options": {"token": "canary"}}
    return Config.model_validate({"archive": archive, "lake": {"uri": str(tmp_path / "lake")}, "lineage": settings})


@contextmanager
def run(
    config: Config, stats: RunStats | None = None, said: io.StringIO | None = None, provenance: Provenance = PROVENANCE
) -> Iterator[None]:
    console = Console(file=said or io.StringIO(), width=400)
    with console_handler(console), observing([LineageEmitter(stats or RunStats())]) as observers:
        observers.run_started(RunStart(config, provenance, "nightly"))
        yield


def read_events(config: Config) -> dict[str, dict[str, Any]]:
    """File name → event, of the lake."""
    files = sorted(Path(str(config.lake.uri), "lineage").iterdir())
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in files}


def read_end(config: Config, state: str) -> dict[str, Any]:
    return read_events(config)[f"{RUN_ID}.{state}.json"]


def add_work(stats: RunStats) -> None:
    """Three recordings, one of which failed, in two commits."""
    stats.add_report(
        {
            "recording_ids": ["secret-1", "secret-2", "secret-3"],
            "archive_ids": [None] * 3,
            "archive_rows": [None] * 3,
            "attempts": [0] * 3,
            "failures": [{"recording_id": "secret-3", "stage": "load", "reason": "not_audio"}],
            "uncovered": [{"recording_id": "secret-1", "seconds": 9.0}],
            "lost": [{"recording_id": "secret-1", "seconds": 3.0}],
            "audio_s": 20.0,
            "retries": 0,
            "stage_s": {"load": 0.5, "emit": 2.0, "decode": 0.25},
        }
    )
    stats.add_written(CommitResult(7, files=1, rows=2, already_there=0, size_bytes=1000))
    stats.add_written(CommitResult(8, files=1, rows=1, already_there=0, size_bytes=234))


def rebuild(event: dict[str, Any]) -> RunEvent:
    """The event by the client's own classes, out of its JSON. Raises where a key is missing, unknown or malformed."""

    def build(facets: dict[str, Any]) -> dict[str, Any]:
        return {name: build_facet(FACETS[name], dict(keys)) for name, keys in facets.items()}

    def build_facet(kind: type[Any], keys: dict[str, Any]) -> Any:
        url, producer = keys.pop("_schemaURL"), keys.pop("_producer")
        facet = kind(**keys, producer=producer)
        assert facet._schemaURL == url
        return facet

    run, job = event["run"], event["job"]
    return RunEvent(
        eventTime=event["eventTime"],
        eventType=RunState(event["eventType"]),
        producer=event["producer"],
        run=Run(run["runId"], build(run["facets"])),
        job=Job(job["namespace"], job["name"], build(job["facets"])),
        inputs=[
            InputDataset(one["namespace"], one["name"], facets=build(one["facets"]), inputFacets=build(one["inputFacets"]))
            for one in event["inputs"]
        ],
        outputs=[
            OutputDataset(one["namespace"], one["name"], facets=build(one["facets"]), outputFacets=build(one["outputFacets"]))
            for one in event["outputs"]
        ],
    )


def test_a_run_tells_its_start_and_its_end_below_the_lake(tmp_path: Path) -> None:
    config, stats = make_config(tmp_path), RunStats()
    before = datetime.now(UTC)
    with run(config, stats):
        assert list(read_events(config)) == [f"{RUN_ID}.start.json"]
        add_work(stats)
    events = read_events(config)
    assert list(events) == [f"{RUN_ID}.complete.json", f"{RUN_ID}.start.json"]
    end, start = events.values()
    assert [event["eventType"] for event in (start, end)] == ["START", "COMPLETE"]
    assert before <= datetime.fromisoformat(start["eventTime"]) <= datetime.fromisoformat(end["eventTime"])
    assert start["run"]["runId"] == end["run"]["runId"] == make_run_uuid(RUN_ID)
    assert (end["job"]["namespace"], end["job"]["name"]) == ("dictalake", "nightly")
    assert end["producer"] == "urn:dictalake:0.1.0"
    ((read,), (written,)) = end["inputs"], end["outputs"]
    assert (read["namespace"], read["name"]) == ("gs://hospital", "dictations")
    assert read["inputFacets"]["inputStatistics"]["rowCount"] == 3
    assert (written["namespace"], written["name"]) == ("file", str(tmp_path / "lake" / "transcripts"))
    assert written["facets"]["version"]["datasetVersion"] == "8"
    counts = written["outputFacets"]["outputStatistics"]
    assert (counts["rowCount"], counts["size"], counts["fileCount"]) == (3, 1234, 2)
    assert start["inputs"][0]["inputFacets"] == start["outputs"][0]["outputFacets"] == {}


def test_a_run_that_wrote_nothing_says_so(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    with run(config):
        pass
    (written,) = read_end(config, "complete")["outputs"]
    assert written["outputFacets"]["outputStatistics"]["rowCount"] == 0
    assert "version" not in written["facets"]


def test_the_clients_own_classes_take_every_event_back(tmp_path: Path) -> None:
    config, stats = make_config(tmp_path), RunStats()
    with pytest.raises(RunError), run(config, stats):  # noqa: PT012
        add_work(stats)
        raise RunError("the cluster is gone")
    names = set()
    for event in read_events(config).values():
        back = Serde.to_dict(rebuild(event))
        for one in back["outputs"]:  # built from plain keys: the nested fields of the schema stay as they are
            assert one["facets"]["schema"]["fields"]
        assert back == event
        for holder in (event["run"], event["job"], *event["inputs"], *event["outputs"]):
            names |= {name for key, facets in holder.items() if key.lower().endswith("facets") for name in facets}
    assert names == set(FACETS), "each facet was among them"


def test_the_run_names_what_decides_its_rows(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    with run(config):
        pass
    facet = read_end(config, "complete")["run"]["facets"]["dictalake_provenance"]
    known = {name: value for name, value in asdict(PROVENANCE).items() if name != "versions" and value is not None}
    assert {name: value for name, value in facet.items() if not name.startswith("_")} == known | {
        "config_hash": describe_config(config)[1]
    }


def test_an_event_holds_no_recording_and_no_secret(tmp_path: Path) -> None:
    config, stats = make_config(tmp_path), RunStats()
    with pytest.raises(ValueError, match="adenocarcinoma"), run(config, stats):  # noqa: PT012
        add_work(stats)
        raise ValueError("gs://hospital/dictations/doe-jane.wav: adenocarcinoma")
    text = json.dumps(read_events(config))
    assert not [word for word in ("secret", "canary", "doe", "adenocarcinoma") if word in text]
    message = read_end(config, "fail")["run"]["facets"]["errorMessage"]
    assert message["message"].startswith("ValueError in test_openlineage.py:")
    assert message["programmingLanguage"] == "PYTHON"


def test_a_run_that_fails_says_why_in_our_words(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    with pytest.raises(RunError, match=r"^the cluster is gone$"), run(config):
        raise RunError("the cluster is gone")
    assert list(read_events(config)) == [f"{RUN_ID}.fail.json", f"{RUN_ID}.start.json"]
    assert read_end(config, "fail")["run"]["facets"]["errorMessage"]["message"] == "RunError: the cluster is gone"


def read_message(config: Config) -> str:
    return read_end(config, "fail")["run"]["facets"]["errorMessage"]["message"]


def test_the_words_of_a_storage_that_fails_stay_out(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    records = RunLog(config.lake)
    records.append(start_record(config, PROVENANCE, "nightly", Counts()))
    (data,) = DeltaTable(str(tmp_path / "lake" / "runs")).file_uris()
    Path(data).unlink()
    with pytest.raises(RunError) as failure, run(config):
        records.read()
    assert Path(data).name in str(failure.value), "the console has them"
    where = tmp_path / "lake" / "runs"
    assert read_message(config) == f"RunError: cannot read the run records at {where} (FileNotFoundError)"


class Refused(TranscriptTable):
    """A table whose commits are all refused, in the words of a storage."""

    def _try_commit(self, files: Sequence[StagedFile]) -> CommitFailedError:
        return CommitFailedError("PUT https://storage.example/canary: 412")


def test_the_words_of_a_refused_commit_stay_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "COMMIT_PATIENCE_S", 0.2)
    config = make_config(tmp_path)
    transcripts, staged = Refused(config.lake), write_staged(make_rows(["a"]), config.lake)
    with pytest.raises(RunError, match=r"the last with: PUT https://storage\.example/canary: 412"), run(config):
        transcripts.commit(staged)
    message = read_message(config)
    assert message.startswith(f"RunError: commits to {tmp_path / 'lake' / 'transcripts'} were refused ")
    assert message.endswith(" times in 0.2 s, the last with (CommitFailedError)")


def test_a_failure_of_one_recording_that_ends_a_run_does_not_name_it(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    with pytest.raises(InternalError, match="canary"), run(config):
        raise InternalError("canary", "KeyError in canary.py:3", "finish")
    assert read_message(config) == "InternalError: internal_error in finish"


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(143)])
def test_a_run_that_is_stopped_is_an_abort_with_what_it_wrote(tmp_path: Path, stop: BaseException) -> None:
    config, stats = make_config(tmp_path), RunStats()
    with pytest.raises(type(stop)), run(config, stats):  # noqa: PT012
        add_work(stats)
        raise stop
    assert list(read_events(config)) == [f"{RUN_ID}.abort.json", f"{RUN_ID}.start.json"]
    end = read_end(config, "abort")
    assert end["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 3
    assert "errorMessage" not in end["run"]["facets"]


def test_off_tells_nobody(tmp_path: Path) -> None:
    config = make_config(tmp_path, kind="off")
    with run(config):
        pass
    assert list(tmp_path.iterdir()) == []


@contextmanager
def server(
    status: int = 201, location: str | None = None, on_event: Callable[[str], None] | None = None
) -> Iterator[tuple[str, Told]]:
    """A server in place of a catalogue: its URL, and what it was told (path, Authorization, event).

    It answers ``status``, which sends on to ``location``, and calls ``on_event(eventType)`` before. Below ``/login`` it has a
    page for whoever is sent there.
    """
    heard: Told = []

    class Catalogue(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append((self.path, self.headers["Authorization"], json.loads(body)))
            if on_event is not None:
                on_event(heard[-1][2]["eventType"])
            self.send_response(201 if self.path == "/login" else status)
            if location is not None:
                self.send_header("Location", location)
            self.end_headers()

        def do_GET(self) -> None:
            assert self.path == "/login"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Who are you?</html>")

        def log_message(self, format: str, *arguments: Any) -> None:
            """Silent."""

    service = HTTPServer(("127.0.0.1", 0), Catalogue)
    thread = threading.Thread(target=service.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{service.server_port}", heard
    finally:
        service.shutdown()
        service.server_close()
        thread.join()


def test_a_server_gets_both_events_and_the_lake_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(openlineage.API_KEY, raising=False)
    with server() as (url, heard):
        config = make_config(tmp_path, kind="http", server=url, namespace="hospital")
        with run(config):
            assert [event["eventType"] for _, _, event in heard] == ["START"]
    assert [(path, key, event["eventType"]) for path, key, event in heard] == [
        ("/api/v1/lineage", None, "START"),
        ("/api/v1/lineage", None, "COMPLETE"),
    ]
    assert {event["job"]["namespace"] for *_, event in heard} == {"hospital"}
    assert rebuild(heard[1][2]).run.runId == make_run_uuid(RUN_ID)
    assert list(tmp_path.iterdir()) == []


def test_a_server_below_a_path_gets_the_key_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(openlineage.API_KEY, "k3y")
    with server() as (url, heard), run(make_config(tmp_path, kind="http", server=f"{url}/tools/lineage")):
        pass
    assert [(path, key) for path, key, _ in heard] == [("/tools/lineage/api/v1/lineage", "Bearer k3y")] * 2
    assert "k3y" not in json.dumps([event for *_, event in heard])


def test_the_clients_own_settings_send_nothing_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server() as (url, heard):
        monkeypatch.setenv("OPENLINEAGE_URL", url)
        monkeypatch.setenv("OPENLINEAGE__FACETS__ENVIRONMENT_VARIABLES", '["PATH"]')
        config = make_config(tmp_path)
        with run(config):
            pass
    assert heard == []
    assert set(read_end(config, "complete")["run"]["facets"]) == {"processing_engine", "dictalake_provenance"}


def test_a_server_that_refuses_or_is_gone_costs_a_warning(tmp_path: Path) -> None:
    said = io.StringIO()
    with server(status=503) as (url, heard), run(make_config(tmp_path, kind="http", server=url), said=said):
        pass
    assert len(heard) == 2, "one try each"
    with run(make_config(tmp_path, kind="http", server=url), said=said):  # nobody listens there any more
        pass
    end = "the run goes on, its event {} is not told"
    assert said.getvalue().splitlines() == [
        f"lineage.server = {url}: {what}; {end.format(state)}"
        for what in ("HTTP 503", "ConnectionError")
        for state in ("START", "COMPLETE")
    ]


@pytest.mark.parametrize(
    ("status", "location"), [(301, "/login"), (302, "/login"), (303, "/login"), (307, "/login"), (308, "/login"), (302, None)]
)
def test_a_server_that_sends_on_to_another_page_has_heard_nothing(tmp_path: Path, status: int, location: str | None) -> None:
    said = io.StringIO()
    with server(status, location) as (url, heard), run(make_config(tmp_path, kind="http", server=url), said=said):
        pass
    assert [path for path, *_ in heard] == ["/api/v1/lineage"] * 2, "nothing is told to where it sends"
    assert said.getvalue().splitlines() == [
        f"lineage.server = {url}: HTTP {status}; the run goes on, its event {state} is not told"
        for state in ("START", "COMPLETE")
    ]


def test_a_run_that_is_stopped_while_it_tells_its_start_is_an_abort(tmp_path: Path) -> None:
    thread_id = threading.get_ident()

    def stop(state: str) -> None:
        if state == "START":
            signal.pthread_kill(thread_id, signal.SIGINT)

    with server(on_event=stop) as (url, heard):
        with pytest.raises(KeyboardInterrupt), run(make_config(tmp_path, kind="http", server=url)):
            pytest.fail("the run began")
        assert [event["eventType"] for *_, event in heard] == ["START", "ABORT"]


class Torn(dict[str, str]):
    """Versions that cannot be looked up."""

    def __missing__(self, key: str) -> str:
        raise LookupError("gs://hospital/canary.wav")


def test_whatever_goes_wrong_in_the_telling_costs_a_warning_by_its_type(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = io.StringIO()
    with run(make_config(tmp_path), said=said, provenance=replace(PROVENANCE, versions=Torn())):
        pass
    assert said.getvalue().splitlines() == [
        f"lineage.kind = file: LookupError; the run goes on, its event {state} is not told" for state in ("START", "COMPLETE")
    ]
    assert capfd.readouterr() == ("", "")


def test_a_server_that_never_answers_holds_a_run_up_for_seconds_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openlineage, "_PATIENCE_S", 0.2)
    said = io.StringIO()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with run(make_config(tmp_path, kind="http", server=url), said=said):
            pass
        assert time.monotonic() - started < 3
    assert len(said.getvalue().splitlines()) == 2
    assert "the run goes on, its event COMPLETE is not told" in said.getvalue()


def test_a_lake_that_takes_no_event_costs_a_warning(tmp_path: Path) -> None:
    config, said = make_config(tmp_path), io.StringIO()
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "lineage").write_text("a file where the folder should be", encoding="utf-8")
    with run(config, said=said):
        pass
    assert said.getvalue().startswith("lineage.kind = file: FileExistsError; the run goes on, its event START is not told\n")


def test_a_place_that_has_no_name_costs_a_warning(tmp_path: Path) -> None:
    said = io.StringIO()
    config = make_config(tmp_path).model_copy(update={"archive": Archive.model_validate({"uri": "gs:///dictations"})})
    with run(config, said=said):
        pass
    assert "lineage.kind = file: ValueError; the run goes on" in said.getvalue()


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
    assert names == set(asdict(PROVENANCE)) - {"versions"} | {"config_hash"}


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
        ([("lineage.server", "http://me:word@marquez:5000")], "must hold no name, password or query"),
        ([("lineage.namespace", "")], "lineage.namespace"),
        ([("lineage.kind", "kafka")], "lineage.kind = 'kafka' from the command line"),
    ],
)
def test_a_bad_value_is_refused_before_a_run(settings: list[tuple[str, str]], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(None, settings, {})
