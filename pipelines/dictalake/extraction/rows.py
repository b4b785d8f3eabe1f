"""Transcripts → rows of the table ``findings``: what is asked of the model, and what becomes of its answers. No Ray in here."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from dictalake.config.sections import Config
from dictalake.errors import ModelUnreachable, RunError, TranscriptionError
from dictalake.extraction.checking import Checked, check_answers
from dictalake.extraction.model import LanguageModel, Reply, Request
from dictalake.extraction.open_model import open_model
from dictalake.extraction.parts import Part, split_text
from dictalake.extraction.prompt import make_messages
from dictalake.extraction.provenance import ExtractProvenance
from dictalake.extraction.timing import WordTimes
from dictalake.extraction.transcripts import Transcript, TranscriptReader
from dictalake.lake.findings_schema import FINDINGS
from dictalake.lake.row_tables import FINDING_ROWS
from dictalake.lake.staged_files import StagedFile, write_staged
from dictalake.workflow.stages.assemble import REPORT
from dictalake.workflow.stages.base import DeferredResource, capture_row_error, redact_errors


@dataclass(frozen=True)
class Question:
    """A transcript in parts, each of which is a request."""

    transcript: Transcript
    parts: Sequence[Part]

    @property
    def requests(self) -> list[Request]:
        return [Request(self.transcript.recording_id, make_messages(part.text)) for part in self.parts]


def ask(transcript: Transcript, part_chars: int) -> Question:
    return Question(transcript, split_text(transcript.text, part_chars))


class RowMaker:
    """Makes the row of a transcript from the replies to its parts."""

    def __init__(self, provenance: ExtractProvenance) -> None:
        self._provenance = provenance

    def make(
        self, question: Question, attempt: int, replies: Sequence[Reply | TranscriptionError], seconds: float
    ) -> dict[str, Any]:
        """One row of the schema FINDINGS. A failure, of the model or of ours, costs this row alone."""
        transcript, checked = question.transcript, Checked()
        failure: dict[str, Any] = {"error": None}
        with capture_row_error(transcript.recording_id, "extract", failure):
            answers = []
            for reply in replies:
                if isinstance(reply, TranscriptionError):
                    raise reply
                answers.append(reply.text)
            times = WordTimes(transcript.text, transcript.words)
            checked = check_answers(
                transcript.recording_id,
                transcript.text,
                question.parts,
                answers,
                times,
                is_corrected=transcript.is_corrected,
            )
        good = [reply for reply in replies if isinstance(reply, Reply)]
        return {
            **self._identify(transcript, attempt),
            "status": "failed" if failure["error"] else "ok",
            **checked.items,
            "offered": checked.offered,
            "dropped": list((+checked.dropped + checked.blanked).items()),
            "parts": len(question.parts),
            "prompt_tokens": _sum([reply.prompt_tokens for reply in good]),
            "answer_tokens": _sum([reply.answer_tokens for reply in good]),
            "seconds": seconds,
            "error": failure["error"],
        }

    def make_failed(self, transcript: Transcript, attempt: int, error: Mapping[str, Any]) -> dict[str, Any]:
        """The row of a transcript that was not read, with the struct ``error``."""
        return {**self._identify(transcript, attempt), "status": "failed", "error": dict(error)}

    def _identify(self, transcript: Transcript, attempt: int) -> dict[str, Any]:
        return {
            "recording_id": transcript.recording_id,
            "run_id": self._provenance.run_id,
            "attempt": attempt,
            "transcript_fingerprint": transcript.fingerprint,
            "transcript_attempt": transcript.attempt,
            "corrected_sha256": transcript.corrected_sha256,
            "provenance": {**self._provenance.row, "extracted_at": datetime.now(UTC)},
            "fingerprint": self._provenance.fingerprint,
            "recorded_month": transcript.recorded_month,
        }


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


class ExtractStage:
    """Lines of the work → staged files with their rows; gives a report of each file. It opens its model once."""

    def __init__(self, config: Config, provenance: ExtractProvenance) -> None:
        self._config, self._maker = config, RowMaker(provenance)
        self._reader = TranscriptReader(config.lake)
        self._model: DeferredResource[LanguageModel] = DeferredResource(
            lambda: open_model(config.extract, provenance.constraint)
        )

    @redact_errors
    def __call__(self, table: pa.Table) -> pa.Table:
        work = {row["recording_id"]: row for row in table.to_pylist()}
        found = self._reader.read(list(work), table["recorded_month"].to_pylist())
        crashed = {one for one in found if work[one].get("error")}
        questions = [ask(found[one], self._config.extract.part_chars) for one in found if one not in crashed]
        rows = self._answer(questions, work)
        rows += [self._maker.make_failed(found[one], work[one]["attempt"], work[one]["error"]) for one in crashed]
        return store(rows, self._config)

    def _answer(self, questions: Sequence[Question], work: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        model = self._model.get()
        requests = [request for question in questions for request in question.requests]
        began = time.monotonic()
        replies = model.answer(requests) if requests else []
        seconds = (time.monotonic() - began) / max(1, len(questions))
        _require_server(model, replies)
        rows, place = [], 0
        for question in questions:
            of_question = replies[place : place + len(question.parts)]
            place += len(question.parts)
            attempt = work[question.transcript.recording_id]["attempt"]
            rows.append(self._maker.make(question, attempt, of_question, seconds))
        return rows


def _require_server(model: LanguageModel, replies: Sequence[Reply | TranscriptionError]) -> None:
    """A server that is gone would make a failed row of each transcript. Raises RunError where it does not answer to a probe
    either; where it does, the transcripts are what it does not take."""
    if replies and all(isinstance(reply, ModelUnreachable) for reply in replies):
        try:
            model.probe()
        except RunError as error:
            raise RunError(f"{error}; what is committed stays, run the same command again to resume") from None


def store(rows: Sequence[dict[str, Any]], config: Config) -> pa.Table:
    """Writes rows as staged files; the reports of these (schema REPORT)."""
    retries = 0

    def count_retry() -> None:
        nonlocal retries
        retries += 1

    files = (
        write_staged(pa.Table.from_pylist(list(rows), schema=FINDINGS), config.lake, count_retry, FINDING_ROWS) if rows else []
    )
    by_id = {row["recording_id"]: row for row in rows}
    reports = [_report(file, [by_id[one] for one in file.recording_ids]) for file in files]
    if reports:
        reports[0]["retries"] = retries
    return pa.Table.from_pylist(reports, schema=REPORT)


def _report(file: StagedFile, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    failures = [{"recording_id": row["recording_id"], **row["error"]} for row in rows if row["error"]]
    return {**file.to_row(), "audio_s": 0.0, "retries": 0, "stage_s": None, "failures": failures, "uncovered": [], "lost": []}
