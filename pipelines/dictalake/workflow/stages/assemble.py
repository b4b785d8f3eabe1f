"""The last stage, Assemble: hypotheses → rows of the lake → Parquet files, which the driver commits.

Three steps: ``RowAssembler`` makes the rows, ``write_staged`` writes them, ``report_files`` counts what each file holds.
The plan, the ledger and the metrics call this stage ``finish``; the lake's ``error.stage`` is ``assemble``. Both are stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from dictalake.audio.vad import join_intervals, subtract_intervals, total_s
from dictalake.config.sections import Config
from dictalake.errors import Erased
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import STAGED, StagedFile, write_staged
from dictalake.records import FrameGrid, Hypothesis, Word
from dictalake.transcript.domain import measure_domain
from dictalake.transcript.formatting import format_text
from dictalake.transcript.nbest import combine_channels
from dictalake.transcript.provenance import Provenance
from dictalake.transcript.words import end_with_recording, find_distinct, join_words, mean_confidence, merge_channels, words_of
from dictalake.workflow import columns
from dictalake.workflow.stages.base import capture_row_error, redact_errors

_WORD_MARGIN_S = 0.5  # speech begins before a word's first piece and ends after its last
# Finer than the step between frames (LASR: 0.04 s from 0.0525 s on), and than what a confidence is worth.
TIME_DIGITS, CONFIDENCE_DIGITS = 4, 3
_TIMED = ("load", "emit", "decode")

REPORT = pa.schema(
    [
        *STAGED,
        pa.field("audio_s", pa.float64()),
        pa.field("retries", pa.int64()),
        pa.field("stage_s", pa.struct([(stage, pa.float64()) for stage in _TIMED])),
        pa.field("failures", pa.list_(pa.struct({"recording_id": pa.string(), "stage": pa.string(), "reason": pa.string()}))),
        *(
            pa.field(name, pa.list_(pa.struct({"recording_id": pa.string(), "seconds": pa.float64()})))
            for name in ("uncovered", "lost")
        ),
        pa.field("judged", pa.int64()),
        pa.field("conversations", pa.int64()),
    ]
)


class Assemble:
    """Hypotheses → files with rows of the lake; gives a report (REPORT) of each file.

    Without ``grid`` the rows hold the words of an engine that gives text itself.
    """

    def __init__(self, config: Config, provenance: Provenance, grid: FrameGrid | None) -> None:
        self._lake, self._uncovered_s = config.lake, config.quality.uncovered_s
        self._assembler = RowAssembler(config, provenance, grid)
        self._is_ctc = grid is not None

    @redact_errors
    def __call__(self, table: pa.Table) -> pa.Table:
        rows = [self._assembler.assemble(row) for row in table.to_pylist()]
        retries = sum(count or 0 for count in table["retries"].to_pylist())

        def count_retry() -> None:
            nonlocal retries
            retries += 1

        files = write_staged(make_transcripts(rows), self._lake, count_retry)
        by_id = {row["recording_id"]: row for row in rows}
        reports = report_files(files, by_id, self._uncovered_s, retries)
        if self._is_ctc:
            reports = [report | count_conversations(by_id[one] for one in report["recording_ids"]) for report in reports]
        return pa.Table.from_pylist(reports, schema=REPORT)


def report_files(
    files: Sequence[StagedFile], rows: Mapping[str, dict[str, Any]], uncovered_s: float, retries: int
) -> list[dict[str, Any]]:
    """The report of each file. ``rows`` are by recording id; the first file counts the ``retries`` of the block."""
    reports = [
        report_file(file, [rows[recording_id] for recording_id in file.recording_ids], uncovered_s) | {"retries": 0}
        for file in files
    ]
    if reports:
        reports[0]["retries"] = retries
    return reports


def report_file(file: StagedFile, rows: Sequence[dict[str, Any]], uncovered_s: float) -> dict[str, Any]:
    """Seconds of audio and of each stage, failures, and the good recordings with more than ``uncovered_s`` of speech without
    words (``uncovered``) or with sound that could not be decoded (``lost``)."""
    measured = [(row["recording_id"], row["quality"]) for row in rows if row["quality"]]
    return {
        **file.to_row(),
        "audio_s": sum(quality["duration_s"] for _, quality in measured),
        "failures": [{"recording_id": row["recording_id"], **row["error"]} for row in rows if row["error"]],
        "uncovered": [
            {"recording_id": recording_id, "seconds": quality["uncovered_speech_s"]}
            for recording_id, quality in measured
            if (quality.get("uncovered_speech_s") or 0.0) > uncovered_s
        ],
        "lost": [
            {"recording_id": row["recording_id"], "seconds": row["quality"]["lost_s"]}
            for row in rows
            if row["status"] == "ok" and row["quality"] and (row["quality"].get("lost_s") or 0.0) > 0
        ],
        "stage_s": {stage: sum(row["timings"][f"{stage}_ms"] or 0.0 for row in rows) / 1000 for stage in _TIMED},
    }


def count_conversations(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many rows say enough to be judged, and how many of those look like conversations."""
    signs = [found for row in rows if (found := measure_domain(row)) is not None]
    return {"judged": len(signs), "conversations": sum(one.looks_like_conversation for one in signs)}


class RowAssembler:
    """Makes rows of the lake from the rows that travel between stages."""

    def __init__(self, config: Config, provenance: Provenance, grid: FrameGrid | None) -> None:
        self._lake, self._provenance, self._grid = config.lake, provenance, grid
        self._numbers, self._confidence, self._nbest = config.formatting.numbers, config.confidence, config.decoding.nbest

    def assemble(self, row: dict[str, Any]) -> dict[str, Any]:
        """One travelling row as one row of the schema TRANSCRIPTS."""
        transcript: dict[str, Any] = {}
        measured: dict[str, Any] = {}
        failure = {"error": row["error"]}
        if row["error"] is None:
            with capture_row_error(row["recording_id"], "assemble", failure):
                if self._grid is None:
                    channels, nbest = columns.row_to_words(row["recognized_words"]), None
                else:
                    best = [columns.row_to_hypothesis(hypothesis) for hypothesis in row["hypotheses"]]
                    channels = self._find_words(best, self._grid)
                    nbest = self._list_hypotheses(best, row["alternatives"], self._grid)
                channels = [end_with_recording(words, row["duration_s"]) for words in channels]
                transcript = self._render(channels) | {"nbest": nbest}
                uncovered_s = None if row["speech_s"] is None else measure_uncovered(row["speech"], channels)
                measured = transcript.pop("markers") | {"uncovered_speech_s": uncovered_s}
        erased = failure["error"] is not None and failure["error"]["reason"] == Erased.reason
        return {
            "recording_id": row["recording_id"],
            "status": "ok" if failure["error"] is None else "failed",
            "run_id": self._provenance.run_id,
            "attempt": row["attempt"],
            "archive_id": row["archive_id"],
            "archive_rows": row["archive_rows"],
            **transcript,
            "quality": None if row["duration_s"] is None else self._quality(row, measured),
            "error": failure["error"],
            **({} if erased else self._origin(row)),
            "provenance": self._provenance_row(row),
            "timings": {key: row[key] for key in ("load_ms", "emit_ms", "decode_ms")},
            "fingerprint": self._provenance.fingerprint,
            "recorded_month": self._month(row["content_datetime"] or row["modified_at"]),
        }

    def _find_words(self, channels: Sequence[Hypothesis], grid: FrameGrid) -> list[list[Word]]:
        return [words_of(one, grid, channel, self._confidence) for channel, one in enumerate(channels)]

    def _list_hypotheses(
        self, best: Sequence[Hypothesis], alternatives: Sequence[Sequence[dict[str, Any]]], grid: FrameGrid
    ) -> list[dict[str, Any]] | None:
        """The column ``nbest``: hypotheses of the whole recording, the best first; None if ``decoding.nbest`` is 1."""
        if self._nbest == 1:
            return None
        lists = [[one, *map(columns.row_to_hypothesis, rest)] for one, rest in zip(best, alternatives, strict=True)]
        # Equal channels count once, as in the text; one of several silent channels stays.
        distinct = find_distinct(self._find_words(best, grid)) or [0]
        return [
            {
                "text": join_words(merge_channels(self._find_words(chosen, grid))),
                **{name: sum(getattr(one, name) for one in chosen) for name in ("acoustic_score", "lm_score", "total_score")},
            }
            for chosen in combine_channels([lists[index] for index in distinct], self._nbest)
        ]

    def _origin(self, row: dict[str, Any]) -> dict[str, Any]:
        """Where the recording comes from; an erased one does not even keep that."""
        return {
            "source": {
                **{key: row[key] for key in ("uri", "version", "size_bytes", "modified_at", "sha256", "loader")},
                **(row["format"] or {}),
            },
            "dicom": None if row["dicom"] is None else {**dict(row["dicom"]), "content_datetime": row["content_datetime"]},
            "metadata": row["metadata"],
        }

    def _render(self, channels: Sequence[Sequence[Word]]) -> dict[str, Any]:
        words = merge_channels(channels)
        text_raw = join_words(words)
        formatted = format_text(text_raw, numbers=self._numbers)
        return {
            "text": formatted.text,
            "text_raw": text_raw,
            "sections": [{**vars(section), "heading": section.heading or None} for section in formatted.sections],
            "words": [round_word(word) for word in words],
            "confidence": None if (confidence := mean_confidence(words)) is None else round(confidence, CONFIDENCE_DIGITS),
            "markers": {"markers_repaired": formatted.repaired, "markers_unknown": formatted.unknown},
        }

    def _quality(self, row: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
        """Measures of the sound, which ``load`` took, and ``measured`` of the transcript."""
        of_sound = ("duration_s", "speech_s", "clipped_ratio", "level_dbfs", "dc_offset", "lost_s", "repairs")
        return {key: row[key] for key in of_sound} | measured

    def _provenance_row(self, row: dict[str, Any]) -> dict[str, Any]:
        p = self._provenance
        names = (
            "run_id",
            "fingerprint",
            "pipeline_version",
            "git_commit",
            "model_id",
            "model_revision",
            "model_sha256",
            "lm_sha256",
        )
        return {name: getattr(p, name) for name in names} | {
            "decoder": p.decoder,
            "versions": list(p.versions.items()) + ([("dtype", row["dtype"])] if row["dtype"] else []),
            "device": row["device"],
            "transcribed_at": datetime.now(UTC),
        }

    def _month(self, when: datetime | None) -> str:
        """``YYYY-MM``; ``unknown`` for a date before the configured range or in the future, since the clock was wrong."""
        if when is None or when > datetime.now(UTC):
            return "unknown"
        month = f"{when:%Y-%m}" if when.year >= 1000 else "unknown"
        return month if month >= self._lake.earliest_month else "unknown"


def round_word(word: Word) -> dict[str, Any]:
    """A word as the lake keeps it. The times of frames repeat from recording to recording and confidences in thousandths do,
    so they take a third of the room of all digits."""
    confidence = None if word.confidence is None else round(word.confidence, CONFIDENCE_DIGITS)
    start_s, end_s = round(word.start_s, TIME_DIGITS), round(word.end_s, TIME_DIGITS)
    return {**vars(word), "start_s": start_s, "end_s": end_s, "confidence": confidence}


def measure_uncovered(speech: Sequence[Sequence[float]], channels: Sequence[Sequence[Word]]) -> float:
    """Seconds of speech without words, over all channels. Half a second around each word counts as covered.

    ``speech`` has start, end, start, end … for each channel; ``channels`` has its words.
    """
    lost = []
    for flat, words in zip(speech, channels, strict=True):
        spoken = np.array(flat, dtype=np.float64).reshape(-1, 2)
        covered = np.array([(w.start_s - _WORD_MARGIN_S, w.end_s + _WORD_MARGIN_S) for w in words]).reshape(-1, 2)
        lost.append(subtract_intervals(spoken, join_intervals([covered])))
    return total_s(join_intervals(lost))
