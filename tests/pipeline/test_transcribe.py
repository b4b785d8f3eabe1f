"""Whole runs over a small archive in which everything occurs that may go wrong with a file."""

from __future__ import annotations

import io
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import ray
from rich.console import Console

from dictalake.config.sections import Config, Lake
from dictalake.errors import ConfigError, RunError
from dictalake.lake.reports import Reports
from dictalake.lake.runs import RunLog
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.observers.base import Observer
from dictalake.observers.stats import FailureKind, RunStats
from dictalake.workflow.commit_loop import commit_as_they_come, require_storage
from dictalake.workflow.crash_ledger import ClusterCrashLedger, describe_wait
from dictalake.workflow.plan import Node, Resources, make_plan
from dictalake.workflow.report_reader import ReportReader
from dictalake.workflow.run import _require_all, transcribe
from dictalake.workflow.stages.assemble import REPORT
from tests.lake_rows import done_ids, make_rows
from tests.pipeline.conftest import FinishedRun
from tests.recordings import MIXED_ARCHIVE, make_config, make_sound, name_of, read_rows, write_wav

GOOD = {name for name, reason in MIXED_ARCHIVE.items() if reason is None}


def test_every_recording_becomes_exactly_one_row(mixed_run: FinishedRun) -> None:
    rows = read_rows(mixed_run.lake)
    assert Counter(name_of(row) for row in rows) == dict.fromkeys(MIXED_ARCHIVE, 1)
    assert {name_of(row) for row in rows if row["status"] == "ok"} == GOOD
    assert {row["attempt"] for row in rows} == {0}
    summary = mixed_run.summary
    assert (summary.found, summary.skipped, summary.ok, summary.failed) == (11, 0, 7, 4)
    assert summary.failures == {"corrupt_audio (load)": 2, "empty_object (load)": 1, "not_audio (load)": 1}
    assert summary.audio_s == pytest.approx(4 * 1.5 + 2.5 + 2 + 0.05, abs=0.1)


def test_a_failed_row_says_stage_reason_and_a_sentence_without_the_name(mixed_run: FinishedRun) -> None:
    failed = [row for row in read_rows(mixed_run.lake) if row["status"] == "failed"]
    errors = {name_of(row): row["error"] for row in failed}
    assert {name: (error["stage"], error["reason"], error["retryable"]) for name, error in errors.items()} == {
        "bad/cut_short.dcm": ("load", "corrupt_audio", False),
        "bad/empty.wav": ("load", "empty_object", False),
        "bad/letter.wav": ("load", "not_audio", False),
        "bad/unreadable.wav": ("load", "corrupt_audio", False),
    }
    assert errors["bad/letter.wav"]["detail"] == "this is text, whatever its name says"
    assert all(re.fullmatch(r"\S+( \S+){4,}", error["detail"]) for error in errors.values())
    assert not any(Path(name).name in error["detail"] for name, error in errors.items())
    assert {(row["text"], row["text_raw"], row["words"], row["confidence"]) for row in failed} == {(None, None, None, None)}


def test_silence_and_a_twentieth_of_a_second_are_ok_rows(mixed_run: FinishedRun) -> None:
    rows = {name_of(row): row for row in read_rows(mixed_run.lake)}
    silence, blip = rows["ward/silence.wav"], rows["ward/blip.wav"]
    assert (silence["status"], silence["quality"]["duration_s"], silence["quality"]["level_dbfs"]) == ("ok", 2.0, None)
    assert (blip["status"], blip["quality"]["duration_s"]) == ("ok", 0.05)
    assert all(row["error"] is None and row["text"] is not None for row in (silence, blip))


def test_words_lie_inside_the_recording_and_make_up_the_raw_text(mixed_run: FinishedRun) -> None:
    for row in read_rows(mixed_run.lake):
        if row["status"] == "ok":
            words = row["words"]
            assert " ".join(word["word"] for word in words) == row["text_raw"]
            end_s = row["quality"]["duration_s"]
            assert all(0 <= word["start_s"] < word["end_s"] <= end_s for word in words)
            assert all(0 <= word["confidence"] <= 1 for word in words)


def test_both_channels_are_transcribed(mixed_run: FinishedRun) -> None:
    rows = {name_of(row): row for row in read_rows(mixed_run.lake)}
    assert {word["channel"] for word in rows["ward/two_channels.wav"]["words"]} == {0, 1}
    assert {word["channel"] for word in rows["ward/tones.wav"]["words"]} == {0}


def test_flac_says_what_wav_says(mixed_run: FinishedRun) -> None:
    rows = {name_of(row): row for row in read_rows(mixed_run.lake)}
    wav, flac = (
        [(w["word"], w["start_s"], w["end_s"]) for w in rows[f"ward/tones.{kind}"]["words"]] for kind in ("wav", "flac")
    )
    assert wav == flac != []


def test_rows_say_what_was_read_and_what_read_it(mixed_run: FinishedRun) -> None:
    rows = {name_of(row): row for row in read_rows(mixed_run.lake)}
    stored = {
        name: tuple(row["source"][key] for key in ("container", "codec", "sample_rate_hz", "channels"))
        for name, row in rows.items()
    }
    assert stored["ward/mu_law.dcm"] == ("dicom", "mu_law", 8000, 1)
    assert stored["ward/two_channels.wav"] == ("wav", "pcm_s16le", 16000, 2)
    assert stored["ward/tones.mp3"] == ("mp3", "mp3", 16000, 1)
    assert stored["bad/letter.wav"] == (None, None, None, None)
    dicom = rows["ward/mu_law.dcm"]
    assert (dicom["dicom"]["modality"], dicom["recorded_month"]) == ("AU", "2024-02")
    assert rows["ward/tones.flac"]["recorded_month"] == "2025-05"
    assert all(len(row["source"]["sha256"]) == 64 for row in rows.values() if name_of(row) != "bad/empty.wav")
    provenance = rows["ward/tones.wav"]["provenance"]
    assert (provenance["model_id"], provenance["decoder"]) == (mixed_run.config.acoustic.model, "greedy")
    assert (provenance["device"], dict(provenance["versions"])["dtype"]) == ("cpu", "float32")
    assert {row["provenance"]["fingerprint"] for row in rows.values()} == {mixed_run.summary.fingerprint}


def test_a_run_leaves_its_record_and_its_manifest(mixed_run: FinishedRun) -> None:
    run_id = mixed_run.summary.run_id
    records = RunLog(mixed_run.config.lake).read()
    started, finished = records.filter(pc.equal(records["run_id"], run_id)).to_pylist()
    assert (started["event"], started["recordings"], started["skipped"], started["cpus"]) == ("started", 11, 0, 2.0)
    assert (finished["event"], finished["ok"], finished["failed"]) == ("finished", 7, 4)
    manifest = pq.read_table(mixed_run.lake / f"manifests/{run_id}")
    assert manifest.num_rows == 11
    assert set(manifest["recording_id"].to_pylist()) == {row["recording_id"] for row in read_rows(mixed_run.lake)}


def test_a_run_leaves_its_report(mixed_run: FinishedRun) -> None:
    reports, run_id = Reports(mixed_run.config.lake), mixed_run.summary.run_id
    page = reports.read(run_id)
    assert f"Run {run_id} " in page
    assert "<code>corrupt_audio</code>" in page
    assert reports.list_recordings(run_id) == {
        row["recording_id"] for row in read_rows(mixed_run.lake) if row["status"] == "ok"
    }
    assert not any(name in page for name in MIXED_ARCHIVE)


def test_a_report_that_cannot_be_written_does_not_cost_the_run(two_cpus: Resources, random_lasr: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "archive/1.wav", make_sound(0.6, seed=1))
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake/reports").write_text("in the way")
    sections = {"archive": {"uri": str(tmp_path / "archive")}, "report": {"write": True}}
    config, shown = make_config(random_lasr, tmp_path / "lake", **sections), io.StringIO()
    summary = transcribe(config, Console(file=shown))
    assert (summary.ok, summary.failed) == (1, 0)
    assert RunLog(config.lake).read()["event"].to_pylist() == ["started", "finished"]
    again = f"dictalake report --run {summary.run_id} makes it again"
    told = rf"^the report of the run is not written \(\w+ in \w+\.py:\d+\); {again}$"
    assert re.search(told, shown.getvalue(), re.MULTILINE)


def test_a_second_run_finds_nothing_to_do(mixed_run: FinishedRun) -> None:
    before = read_rows(mixed_run.lake, filter=pc.field("fingerprint") == mixed_run.summary.fingerprint)
    summary = transcribe(mixed_run.config)
    assert (summary.found, summary.skipped, summary.skipped_failed, summary.ok, summary.failed) == (11, 11, 4, 0, 0)
    assert summary.fingerprint == mixed_run.summary.fingerprint
    assert read_rows(mixed_run.lake, filter=pc.field("fingerprint") == summary.fingerprint) == before
    assert summary.run_id not in Reports(mixed_run.config.lake).find()
    assert ray.is_initialized()


def test_other_decoding_adds_rows_under_its_own_fingerprint(mixed_run: FinishedRun) -> None:
    first = pc.field("fingerprint") == mixed_run.summary.fingerprint
    before = read_rows(mixed_run.lake, filter=first)
    beam = mixed_run.config.decoding.model_copy(update={"kind": "beam", "lm": None, "beam_width": 4})
    summary = transcribe(mixed_run.config.model_copy(update={"decoding": beam}))
    assert (summary.skipped, summary.ok, summary.failed) == (0, 7, 4)
    assert summary.fingerprint != mixed_run.summary.fingerprint
    assert read_rows(mixed_run.lake, filter=first) == before
    added = read_rows(mixed_run.lake, filter=pc.field("fingerprint") == summary.fingerprint)
    assert [row["recording_id"] for row in added] == [row["recording_id"] for row in before]
    assert {row["provenance"]["decoder"].split()[0] for row in added} == {"native"}


def test_a_manifest_is_taken_row_by_row(two_cpus: Resources, random_lasr: Path, tmp_path: Path) -> None:
    for number in range(3):
        write_wav(tmp_path / f"archive/{number}.wav", make_sound(0.6, seed=number))
    lines = ["uri,reference,ward", "0.wav,no fracture,3b", "1.wav,,3b", "0.wav,again,4a", "gone.wav,,4a", "2.wav,,"]
    (tmp_path / "archive/manifest.csv").write_text("\n".join(lines), encoding="utf-8")
    summary = transcribe(
        make_config(random_lasr, tmp_path / "lake", archive={"manifest": str(tmp_path / "archive/manifest.csv")})
    )
    assert (summary.found, summary.ok, summary.failed) == (4, 3, 1)
    rows = {Path(row["source"]["uri"]).name: row for row in read_rows(tmp_path / "lake")}
    assert {name: (row["status"], dict(row["metadata"])) for name, row in rows.items()} == {
        "0.wav": ("ok", {"reference": "no fracture", "ward": "3b"}),
        "1.wav": ("ok", {"ward": "3b"}),
        "2.wav": ("ok", {}),
        "gone.wav": ("failed", {"ward": "4a"}),
    }
    error = rows["gone.wav"]["error"]
    assert (error["stage"], error["reason"]) == ("load", "not_found")
    assert error["detail"] == "the object is not there (any more); restore it or leave it out"


def test_a_plan_that_cannot_fit_is_refused_with_the_numbers() -> None:
    config = Config.model_validate({"acoustic": {"actors": 3, "device": "cpu"}})
    with pytest.raises(
        ConfigError, match=r"^the plan does not fit the cluster: it needs 4 CPUs and 0 GPUs \(load 1 × .*, there are 2 "
    ):
        make_plan(config, Resources(cpus=2, gpus=0))
    with pytest.raises(ConfigError, match=r"^acoustic\.device = cuda, but the cluster has no GPU"):
        make_plan(Config.model_validate({"acoustic": {"device": "cuda"}}), Resources(cpus=16, gpus=0))


def test_a_worker_that_fits_no_single_node_is_refused() -> None:
    config = Config.model_validate({"acoustic": {"cpus_per_actor": 8, "device": "cpu", "actors": 1}})
    four_small = Resources(cpus=16, gpus=0, nodes=(Node(4, 0),) * 4)
    with pytest.raises(
        ConfigError,
        match=r"one worker of emit needs 8 CPUs, 0 GPUs and 1000 MB on one node, of 4 the one with most CPUs has 4 C",
    ):
        make_plan(config, four_small)
    assert make_plan(Config.model_validate({"acoustic": {"device": "cpu", "actors": 1}}), four_small).threads == 4
    little_memory = Resources(cpus=16, gpus=0, nodes=(Node(4, 0, 900),) * 4, memory_mb=3600)
    with pytest.raises(
        ConfigError, match=r"one worker of load needs 0\.25 CPUs, 0 GPUs and 1000 MB .* and 900 MB; .*load_memory"
    ):
        make_plan(Config.model_validate({"acoustic": {"device": "cpu", "actors": 1}}), little_memory)
    with pytest.raises(ConfigError, match=r"it needs 2700 MB of memory \(each worker in MB: load 1000, .*\), Ray counts 2000"):
        make_plan(Config.model_validate({"acoustic": {"device": "cpu"}}), Resources(cpus=2, gpus=0, memory_mb=2000))


def test_what_a_worker_cannot_load_is_one_clear_error(two_cpus: Resources, random_lasr: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "archive/CANARY.wav", make_sound(1.0, seed=1))
    shutil.copytree(random_lasr, tmp_path / "model")
    (tmp_path / "model/model.safetensors").write_bytes(b"not tensors")
    config = make_config(tmp_path / "model", tmp_path / "lake", archive={"uri": str(tmp_path / "archive")})
    with pytest.raises(
        ConfigError, match=r"^acoustic\.model: model does not load as a Hugging Face CTC model: [^\n]+$"
    ) as caught:
        transcribe(config)
    assert RunLog(config.lake).read()["event"].to_pylist() == ["started", "failed"]
    until = time.monotonic() + 60
    while (free := ray.available_resources().get("CPU", 0)) < 2 and time.monotonic() < until:
        time.sleep(0.2)
    assert free == 2, f"who keeps the error {caught.type.__name__} keeps workers of the run that is over"


def test_a_run_that_fails_before_it_knows_its_work_is_in_the_run_records(random_lasr: Path, tmp_path: Path) -> None:
    config = make_config(random_lasr, tmp_path / "lake", archive={"uri": str(tmp_path / "archive")})
    with pytest.raises(ConfigError, match="archive"):
        transcribe(config, job="nightly")
    rows = RunLog(config.lake).read().select(["event", "job", "recordings", "ok"]).to_pylist()
    assert rows == [
        {"event": "started", "job": "nightly", "recordings": None, "ok": None},
        {"event": "failed", "job": "nightly", "recordings": None, "ok": 0},
    ]


def test_what_fails_for_a_whole_block_is_one_line_without_paths(two_cpus: Resources, random_lasr: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "archive/CANARY.wav", make_sound(1.0, seed=1))
    config = make_config(random_lasr, tmp_path / "lake", archive={"uri": str(tmp_path / "archive")})
    # A file where the folder of this fingerprint would be made: nobody, not even root, can write there.
    summary = transcribe(config)
    shutil.rmtree(tmp_path / "lake")
    (tmp_path / "lake/transcripts").mkdir(parents=True)
    (tmp_path / f"lake/transcripts/fingerprint={summary.fingerprint}").write_text("in the way")
    with pytest.raises(RunError, match=r"^[^\n]+$") as caught:
        transcribe(config)
    assert "Assemble" in str(caught.value)
    assert "CANARY" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_finished_block_is_committed_while_the_next_one_takes_long(tmp_path: Path) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    table, seen = TranscriptTable(lake), []

    def reports() -> Iterator[pa.Table]:
        files = write_staged(make_rows(["a"]), lake)
        yield pa.Table.from_pylist(
            [{**file.to_row(), "audio_s": 2.0, "failures": [], "uncovered": [], "lost": [], "retries": 0} for file in files],
            schema=REPORT,
        )
        for _ in range(100):  # the second block: over when the first one is in the lake, or after 20 s
            seen[:] = done_ids(TranscriptTable(lake))
            if seen:
                return
            time.sleep(0.2)

    stats = RunStats(wanted=2)
    commit_as_they_come(ReportReader(reports(), 0.05), table, stats, Observer(), every_s=0.1)
    assert seen == [("a", 0)]
    assert (stats.ok, stats.audio_s) == (1, 2.0)


def test_a_run_in_which_a_recording_got_no_row_does_not_pass_for_complete() -> None:
    with pytest.raises(RunError, match=r"^1 of 3 recordings got no row; what is committed stays, run the same command again"):
        _require_all(1, 3)
    _require_all(0, 3)


def test_what_was_finished_before_a_failure_is_committed(tmp_path: Path) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    table = TranscriptTable(lake)

    def reports() -> Iterator[pa.Table]:
        files = write_staged(make_rows(["a"]), lake)
        yield pa.Table.from_pylist(
            [{**file.to_row(), "audio_s": 2.0, "failures": [], "uncovered": [], "lost": [], "retries": 0} for file in files],
            schema=REPORT,
        )
        raise RunError("the cluster is gone")

    stats = RunStats(wanted=2)
    with pytest.raises(RunError, match="the cluster is gone"):
        commit_as_they_come(ReportReader(reports(), 0.05), table, stats, Observer(), every_s=1000)
    assert done_ids(TranscriptTable(lake)) == [("a", 0)]


def make_report(name: str, lake: Lake) -> pa.Table:
    rows = [
        {**file.to_row(), "audio_s": 2.0, "failures": [], "uncovered": [], "lost": [], "retries": 0}
        for file in write_staged(make_rows([name]), lake)
    ]
    return pa.Table.from_pylist(rows, schema=REPORT)


def test_a_stop_in_the_middle_of_a_commit_loses_neither_its_files_nor_those_that_arrived_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    table, commit, tries = TranscriptTable(lake), TranscriptTable.commit, []

    def stop_once(self: TranscriptTable, files: Any) -> Any:
        tries.append(len(files))
        if len(tries) == 1:
            raise SystemExit(143)
        return commit(self, files)

    monkeypatch.setattr(TranscriptTable, "commit", stop_once)
    late = make_report("b", lake)
    with pytest.raises(SystemExit):
        commit_as_they_come(
            iter([make_report("a", lake)]), table, RunStats(), Observer(), every_s=0, take_arrived=lambda: [late]
        )
    assert tries == [1, 2]
    assert sorted(done_ids(TranscriptTable(lake))) == [("a", 0), ("b", 0)]


def test_a_commit_that_failed_is_not_tried_as_long_again_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    table, tries = TranscriptTable(lake), []

    def fail(self: TranscriptTable, files: Any) -> Any:
        tries.append(len(files))
        raise RunError("the lake cannot be written") from OSError("503")

    monkeypatch.setattr(TranscriptTable, "commit", fail)
    late = make_report("b", lake)
    with pytest.raises(RunError, match="the lake cannot be written"):
        commit_as_they_come(
            iter([make_report("a", lake)]), table, RunStats(), Observer(), every_s=0, take_arrived=lambda: [late]
        )
    assert tries == [1]


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 64, 1000])
def test_the_default_plan_fits_any_number_of_cpus(cpus: int) -> None:
    plan = make_plan(Config.model_validate({"acoustic": {"device": "cpu"}}), Resources(cpus=cpus, gpus=0))
    assert all(stage.workers >= 1 for stage in plan.stages)
    assert 1 <= plan.threads <= cpus


def test_a_run_stops_when_the_storage_gives_nothing_any_more() -> None:
    stats = RunStats(wanted=5000, failed=40, consecutive_storage_failures=40)
    stats.failures[FailureKind("credentials_expired", "load")] = 40
    require_storage(stats, 0)
    require_storage(stats, 41)
    with pytest.raises(RunError, match=r"did not give any of the last 40 recordings \(credentials_expired \(load\): 40\)"):
        require_storage(stats, 40)


def test_a_run_that_waits_names_what_is_in_work_and_what_the_cluster_has(two_cpus: Resources) -> None:
    plan = make_plan(Config.model_validate({"acoustic": {"device": "cpu"}}), two_cpus)
    ledger = ClusterCrashLedger()
    assert describe_wait(plan, ledger, 300).startswith(
        "nothing finished for 300 s, waiting for workers to start: load 0 in work, "
    )
    ledger.begin("load", "key", 7)
    line = describe_wait(plan, ledger, 400)
    assert "waiting for a worker to finish what it has: load 7 in work for " in line
    assert re.search(
        r"the cluster has 1 nodes, [\d.]+ of 2 CPUs free; the run asks for load 1 x \(0.25 CPU, 0 GPU, 1000 MB\)", line
    )
