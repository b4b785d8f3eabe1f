"""Small transcripts for tests of the lake."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from dictalake.lake.schema import make_transcripts
from dictalake.lake.table import TranscriptTable

FINGERPRINT = "3f0c9a12b7de"
MONTH = "2026-03"


def make_row(recording_id: str, **changes: Any) -> dict[str, Any]:
    """A row with something in every column."""
    row: dict[str, Any] = {
        "recording_id": recording_id,
        "status": "ok",
        "run_id": "run-1",
        "attempt": 0,
        "text": "No acute fracture.",
        "text_raw": "no acute fracture {period}",
        "sections": [{"heading": "FINDINGS", "name": "FINDINGS", "text": "No acute fracture."}],
        "words": [{"word": "no", "start_s": 0.0725, "end_s": 0.1525, "confidence": 0.5, "channel": 0}],
        "nbest": [{"text": "no acute fracture", "acoustic_score": -1.5, "lm_score": -0.5, "total_score": -2.0}],
        "confidence": 0.5,
        "quality": {
            "duration_s": 2.0,
            "speech_s": 1.5,
            "uncovered_speech_s": 0.0,
            "markers_repaired": 0,
            "markers_unknown": 1,
            "clipped_ratio": 0.0,
            "level_dbfs": -20.0,
            "dc_offset": 0.0,
            "lost_s": 0.0,
            "repairs": [],
        },
        "error": None,
        "source": {"uri": f"gs://archive/{recording_id}.wav", "version": "1", "size_bytes": 64_044, "channels": 1, "loader": 2},
        "dicom": {"modality": "AU", "content_datetime": datetime(2026, 3, 1, 8, 30, tzinfo=UTC)},
        "metadata": [("department", "radiology")],
        "provenance": {"run_id": "run-1", "fingerprint": FINGERPRINT, "versions": [("torch", "2.13.0")]},
        "timings": {"load_ms": 1.0, "emit_ms": 2.0, "decode_ms": 3.0},
        "fingerprint": FINGERPRINT,
        "recorded_month": MONTH,
    }
    return {**row, **changes}


def make_failed_row(recording_id: str, **changes: Any) -> dict[str, Any]:
    """The least that a failed recording has."""
    error = {"stage": "load", "reason": "not_audio", "detail": "the object is text", "retryable": False}
    identity = {"run_id": "run-1", "attempt": 0, "fingerprint": FINGERPRINT, "recorded_month": MONTH}
    return {"recording_id": recording_id, "status": "failed", "error": error, **identity, **changes}


def make_rows(recording_ids: Iterable[str], **changes: Any) -> pa.Table:
    """One row per id, schema TRANSCRIPTS."""
    return make_transcripts([make_row(recording_id, **changes) for recording_id in recording_ids])


def done_ids(table: TranscriptTable, fingerprint: str = FINGERPRINT) -> list[tuple[str, int]]:
    """(recording_id, attempt) of every committed row, sorted, repeats kept."""
    done = table.committed(fingerprint).to_table()
    return sorted(zip(done["recording_id"].to_pylist(), done["attempt"].to_pylist(), strict=True))
