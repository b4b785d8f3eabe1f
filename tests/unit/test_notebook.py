"""``import dictalake`` in a notebook: it is cheap, and every view can be taken in the form that the reader works with."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow as pa
import pytest

import dictalake
from dictalake.config.sections import Config, Lake
from dictalake.errors import ConfigError, RunError
from dictalake.lake.corrections import CorrectionRecord, Corrections
from dictalake.lake.fingerprints import FingerprintLog
from dictalake.lake.query import VIEWS
from dictalake.lake.rechecks import Recheck, RecheckLog
from dictalake.lake.runs import RunLog, RunRecord
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from tests.extracted_lake import add_extractions, make_extraction
from tests.lake_rows import FINGERPRINT, make_failed_row, make_row

AT = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
# Rows of each view in the lake below.
ROWS = {
    "history": 2,
    "transcripts": 1,
    "transcript_words": 1,
    "transcript_sections": 1,
    "recordings": 2,
    "promotions": 1,
    "superseded": 0,
    "failures": 1,
    "incomplete": 1,
    "rechecks": 1,
    "runs": 1,
    "corrections": 1,
    "extractions": 1,
    "findings": 1,
    "medications": 2,
    "lab_values": 1,
    "follow_ups": 1,
    "impressions": 1,
}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One recording that was transcribed, one that failed, the run that did it, and a recheck that found sound missing."""
    folder = tmp_path_factory.mktemp("notebook") / "lake"
    config = Lake.model_validate({"uri": str(folder)})
    row = make_row("a")
    row["provenance"] |= {"transcribed_at": AT}
    TranscriptTable(config).commit(write_staged(make_transcripts([row, make_failed_row("b")]), config))
    RunLog(config).append(
        RunRecord(run_id="run-1", event="started", at=AT, fingerprint=FINGERPRINT, job="backfill"),
        RunRecord(run_id="run-1", event="finished", at=AT + timedelta(hours=1), ok=1, failed=1),
    )
    FingerprintLog(config).promote_first(FINGERPRINT, "run-1")
    found = Recheck(
        recording_id="a", fingerprint=FINGERPRINT, attempt=0, loader=2, at=AT, verdict="lost", missing_s=1.0, repairs=("hole",)
    )
    RecheckLog(config).append([found])
    Corrections(config).save(CorrectionRecord(recording_id="b", event="corrected", who="Ann", text="no acute fracture"))
    add_extractions(config, make_extraction("a", findings=[{"term": "fracture", "quote": "fracture", "negated": True}]))
    return folder


@pytest.fixture(scope="module")
def views(lake: Path) -> duckdb.DuckDBPyConnection:
    return dictalake.connect(lake)


def take(relation: duckdb.DuckDBPyRelation, method: str) -> list[dict[str, Any]]:
    """The rows as Python objects, by way of ``method``."""
    if method == "df":
        return [dict(row) for row in relation.df().to_dict("records")]
    if method == "pl":
        return relation.pl().to_dicts()
    if method == "arrow":
        found = relation.arrow()
        return (found.read_all() if isinstance(found, pa.RecordBatchReader) else found).to_pylist()
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


METHODS = ("df", "pl", "arrow", "fetchall")


def test_every_view_is_tested() -> None:
    assert set(VIEWS) == set(ROWS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("view", ROWS)
def test_a_view_can_be_taken_in_every_form(views: duckdb.DuckDBPyConnection, view: str, method: str) -> None:
    assert len(take(views.table(view), method)) == ROWS[view]


@pytest.mark.parametrize("method", METHODS)
def test_times_are_in_utc_in_every_form(views: duckdb.DuckDBPyConnection, method: str) -> None:
    (run,) = take(views.sql("SELECT started_at, ended_at FROM runs"), method)
    (row,) = take(views.sql("SELECT provenance.transcribed_at AS at FROM transcripts"), method)
    (recheck,) = take(views.sql('SELECT "at" FROM rechecks'), method)
    ended_at = AT + timedelta(hours=1)
    for time, wanted in ((run["started_at"], AT), (run["ended_at"], ended_at), (row["at"], AT), (recheck["at"], AT)):
        assert time == wanted
        assert time.utcoffset() == timedelta(0)


def test_a_polars_column_says_its_time_zone(views: duckdb.DuckDBPyConnection) -> None:
    assert views.sql("SELECT started_at FROM runs").pl().schema["started_at"] == polars.Datetime("us", "UTC")


@pytest.mark.parametrize(
    "question",
    ["SELECT * FROM read_csv('/etc/passwd')", "COPY runs TO 'runs.csv'", "SET enable_external_access = true", "INSTALL httpfs"],
)
def test_a_connection_reads_the_views_and_nothing_else(views: duckdb.DuckDBPyConnection, question: str) -> None:
    with pytest.raises(duckdb.Error):
        views.execute(question)


def test_results_larger_than_the_memory_are_spilled_and_the_folder_goes_with_the_connection(
    lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    connection = dictalake.connect(lake)
    (folder,) = connection.sql("SELECT current_setting('temp_directory')").fetchall()[0]
    assert Path(folder).parent == tmp_path
    connection.close()
    del connection
    assert list(tmp_path.iterdir()) == []


def test_a_lake_that_is_not_there_is_named_and_bad_options_are_refused(lake: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nowhere"):
        dictalake.connect(tmp_path / "nowhere")
    with pytest.raises(ConfigError):
        dictalake.connect("ftp://host/lake")


def test_keys_of_a_call_win_over_the_environment_and_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DICTALAKE_ACOUSTIC_DEVICE", "cuda")
    monkeypatch.setenv("DICTALAKE_RAY_CPUS", "3")
    config = dictalake.load_config(
        "medasr", acoustic_device="cpu", decoding_lm=None, limits_duration_h=2, archive_include=["*.wav"], lake_uri=tmp_path
    )
    assert (config.acoustic.device, config.ray.cpus, config.decoding.lm) == ("cpu", 3, None)
    assert (config.limits.duration_h, config.archive.include, config.lake.uri) == (2, ("*.wav",), str(tmp_path))


def test_no_section_has_an_underscore_which_would_hide_where_its_name_ends() -> None:
    assert [section for section in Config.model_fields if "_" in section] == []


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"acoustic_devise": "cpu"}, "unknown key acoustic.devise from the call: did you mean acoustic.device"),
        ({"device": "cpu"}, "unknown key device from the call: did you mean acoustic.device"),
        ({"acoustic_device": "tpu"}, "acoustic.device = 'tpu' from the call"),
    ],
)
def test_transcribe_refuses_a_bad_key_by_name(keys: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        dictalake.transcribe(tmp_path, tmp_path / "lake", **keys)


def test_transcribe_hands_the_call_to_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[tuple[Config, str, bool]] = []

    def run(config: Config, job: str, *, allow_empty: bool) -> None:
        seen.append((config, job, allow_empty))

    monkeypatch.setattr("dictalake.workflow.run.transcribe", run)
    dictalake.transcribe("archive", tmp_path / "lake", "demo", acoustic_device="cpu")
    ((config, job, allow_empty),) = seen
    assert (config.archive.uri, config.lake.uri) == ("archive", str(tmp_path / "lake"))
    assert (config.acoustic.device, job, allow_empty) == ("cpu", "transcribe", True)


def test_the_version_is_that_of_the_installed_package() -> None:
    assert dictalake.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dictalake.nothing


def test_importing_dictalake_is_cheap() -> None:
    code = (
        "import json, sys, time\nbefore, start = set(sys.modules), time.process_time()\nimport dictalake\n"
        "print(json.dumps([time.process_time() - start, sorted(set(sys.modules) - before)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, modules = json.loads(done.stdout)
    assert {name.partition(".")[0] for name in modules} & {"torch", "ray", "pandas", "polars", "duckdb", "pydantic"} == set()
    assert seconds < 0.1
