"""A small lake with two months, two models and three runs, and ways to ask it with ``dictalake query``."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dictalake.cli.main import run_command
from dictalake.config.sections import Lake
from dictalake.lake.runs import RunLog, RunRecord
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.superseded import refresh_superseded
from dictalake.lake.table import TranscriptTable
from tests.lake_rows import make_failed_row, make_row

ROOT = Path(__file__).parents[1]
OLD, NEW = "3f0c9a12b7de", "7be1d0a94c52"
MARCH, APRIL = datetime(2026, 3, 2, 8, tzinfo=UTC), datetime(2026, 4, 6, 8, tzinfo=UTC)


def make_dictation(recording_id: str, said: str, at: datetime, waited_h: float, **changes: Any) -> dict[str, Any]:
    """A good row with the words ``said``, one a second, recorded at ``at`` and transcribed ``waited_h`` hours later."""
    fingerprint, confidence = changes.get("fingerprint", NEW), changes.get("confidence", 0.9)
    words = [
        {"word": word.replace("_", " "), "start_s": i + 0.25, "end_s": i + 0.75, "confidence": confidence, "channel": 0}
        for i, word in enumerate(said.split())
    ]
    row = make_row(recording_id, text=said.capitalize(), text_raw=said.replace("_", " "), words=words, confidence=confidence)
    row["source"] |= {"modified_at": at}
    row["dicom"] = None
    row["quality"] |= {"duration_s": 1800.0, "speech_s": 1000.0}
    row["provenance"] |= {"fingerprint": fingerprint, "transcribed_at": at + timedelta(hours=waited_h)}
    return {**row, "fingerprint": fingerprint, "recorded_month": f"{at:%Y-%m}", **changes}


def make_small_lake() -> list[dict[str, Any]]:
    """``a`` was transcribed by two models, ``b`` dictates its study again, ``c`` succeeded at the second try, ``e`` never."""
    radiology, cardiology = [("specialty", "radiology"), ("device", "LFH 5274")], [("department", "cardiology")]
    study = {"study_instance_uid": "1.2.3", "manufacturer_model_name": "DS-9500"}
    findings = [
        {"heading": None, "name": None, "text": "Chest."},
        {"heading": "FINDINGS", "name": "FINDINGS", "text": "Clear."},
    ]
    summary = [*findings, {"heading": "CONCLUSION", "name": "IMPRESSION", "text": "Well."}]
    heard = make_row("d")["quality"] | {"duration_s": 3600.0, "speech_s": 2000.0, "uncovered_speech_s": 90.0}
    a = {"metadata": radiology, "dicom": {**study, "content_datetime": MARCH}}
    c_failed = {"fingerprint": NEW, "recorded_month": "2026-04"}
    fetch = {"stage": "load", "reason": "fetch_failed", "detail": "the storage did not answer", "retryable": True}
    no = "patient_denies taking any aspirin {period} she takes warfarin"
    return [
        make_dictation("a", "no aspirin", MARCH, 2, **a, fingerprint=OLD, confidence=0.5, sections=findings),
        make_dictation("a", "no aspirin given", MARCH, 900, **a, confidence=0.75, sections=findings),
        make_dictation("b", "warfarin [FINDINGS] no", MARCH + timedelta(days=1), 4, **a, sections=summary),
        make_failed_row("c", error=fetch, **c_failed),
        make_dictation("c", no.replace("patient_", ""), APRIL, 6, metadata=cardiology, attempt=1, sections=summary),
        make_dictation("d", "insulin", APRIL, 10, metadata=None, quality=heard, sections=[]),
        make_failed_row("e", **c_failed),
    ]


def make_runs() -> list[RunRecord]:
    def start(run_id: str, at: datetime, **changes: Any) -> RunRecord:
        return RunRecord(run_id=run_id, event="started", job="nightly", at=at, host="node-1", recordings=3, **changes)

    def end(run_id: str, at: datetime, **changes: Any) -> RunRecord:
        return RunRecord(run_id=run_id, event="finished", job="nightly", at=at, fingerprint=NEW, **changes)

    hour = timedelta(hours=1)
    first = end("r1", MARCH + hour, ok=3, failed=1, audio_hours=1.5, wall_s=3600.0, speed=1.5, failures={"fetch_failed": 1})
    second = end("r2", APRIL + hour, ok=2, failed=1, audio_hours=3.0, wall_s=1800.0, speed=6.0, failures={})
    return [start("r1", MARCH, cpus=2.0), first, start("r2", APRIL), second, start("r3", APRIL + 2 * hour)]


def write_lake(folder: Path) -> str:
    lake = Lake.model_validate({"uri": str(folder)})
    TranscriptTable(lake).commit(write_staged(make_transcripts(make_small_lake()), lake))
    RunLog(lake).append(*make_runs())
    refresh_superseded(lake)  # as a run does at its end
    return str(folder)


def query(lake: str, tmp_path: Path, *arguments: str) -> list[tuple[Any, ...]]:
    """The answer's rows, by way of a Parquet file."""
    out = tmp_path / "answer.parquet"
    assert run_command("query", ["--lake.uri", lake, *arguments, "--out", str(out)]) == 0
    table = pq.read_table(out)
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def run_job(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "dictalake", "query", *arguments], cwd=ROOT, stderr=subprocess.PIPE, **options)
