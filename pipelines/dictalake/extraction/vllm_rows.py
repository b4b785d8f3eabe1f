"""What stands before and after vLLM's processor in Ray Data: a row for each transcript goes in, and comes back with an answer.

Rows travel alone through that processor, so a transcript is read whole: ``extract.part_chars`` does not count here. A text
that is too long for the model's context is a failed row. No Ray in here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from dictalake.config.sections import Config
from dictalake.errors import AnswerCutOff, AnswerInvalid, ModelRefused, TranscriptionError
from dictalake.extraction.model import Reply
from dictalake.extraction.prompt import SCHEMA_TEXT
from dictalake.extraction.provenance import ExtractProvenance
from dictalake.extraction.rows import RowMaker, ask, store
from dictalake.extraction.transcripts import Transcript, TranscriptReader
from dictalake.lake.manifests import BlockPlace, Manifests
from dictalake.workflow.stages.base import redact_errors, redacting

WHOLE = 1 << 30
ERROR = "__inference_error__"  # what the processor puts into rows that failed


class PrepareRows:
    """Places of blocks in the manifest → a row for each transcript with the conversation about it."""

    def __init__(self, config: Config, provenance: ExtractProvenance) -> None:
        self._manifests, self._run_id = Manifests(config.lake), provenance.run_id
        self._reader = TranscriptReader(config.lake)

    @redact_errors
    def __call__(self, places: pa.Table) -> pa.Table:
        rows = []
        for place in places.to_pylist():
            block = self._manifests.read_block(self._run_id, BlockPlace(**place)).to_pylist()
            attempts = {row["recording_id"]: row["attempt"] for row in block}
            found = self._reader.read(list(attempts), [row["recorded_month"] for row in block])
            rows += [make_row(transcript, attempts[one]) for one, transcript in found.items()]
        return pa.Table.from_pylist(rows, schema=ROWS)


ROWS = pa.schema([("recording_id", pa.string()), ("attempt", pa.int32()), ("prompt", pa.string()), ("transcript", pa.string())])


def make_row(transcript: Transcript, attempt: int) -> dict[str, Any]:
    requests = ask(transcript, WHOLE).requests
    return {
        "recording_id": transcript.recording_id,
        "attempt": attempt,
        "prompt": requests[0].messages[0]["content"] if requests else "",
        "transcript": json.dumps(asdict(transcript)),
    }


def preprocess(row: Mapping[str, Any], max_tokens: int) -> dict[str, Any]:
    """What vLLM's processor takes, bound to the schema by vLLM's own structured outputs.

    The schema is a text: as columns, Arrow would fill it up with nulls.
    """
    return {
        "messages": [{"role": "user", "content": row["prompt"]}],
        "sampling_params": {"temperature": 0.0, "max_tokens": max_tokens, "structured_outputs": {"json": SCHEMA_TEXT}},
        **{name: row[name] for name in ("recording_id", "attempt", "transcript")},
    }


def postprocess(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("recording_id", "attempt", "transcript", "generated_text", "num_input_tokens", "num_generated_tokens")
    return {name: row.get(name) for name in names}


class StoreRows:
    """Answers → staged files with their rows; gives a report of each file."""

    def __init__(self, config: Config, provenance: ExtractProvenance) -> None:
        self._config, self._maker = config, RowMaker(provenance)

    def __call__(self, table: pa.Table) -> pa.Table:
        with redacting(self):
            rows = [self._make(row) for row in table.to_pylist()]
            return store(rows, self._config)

    def _make(self, row: Mapping[str, Any]) -> dict[str, Any]:
        transcript = Transcript(**json.loads(row["transcript"]))
        question = ask(transcript, WHOLE)
        replies = [take_reply(row, self._config.extract.max_tokens)] if question.parts else []
        return self._maker.make(question, row["attempt"], replies, 0.0)


def take_reply(row: Mapping[str, Any], max_tokens: int) -> Reply | TranscriptionError:
    """The reply in a row that comes back. The words of the processor's error may quote the prompt: they stay out."""
    if row.get(ERROR):
        return ModelRefused(row["recording_id"], "vLLM refused the text; it may be longer than the model's context")
    if not row.get("generated_text"):
        return AnswerInvalid(row["recording_id"], "the answer is empty")
    if (row.get("num_generated_tokens") or 0) >= max_tokens:
        return AnswerCutOff(row["recording_id"], f"the answer ended after {max_tokens} tokens")
    return Reply(row["generated_text"], row.get("num_input_tokens"), row.get("num_generated_tokens"))
