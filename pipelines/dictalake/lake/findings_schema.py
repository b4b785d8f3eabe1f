"""The Arrow schema of the table ``findings``: what a language model found in a transcript, each item with its words.

A row is one extraction from one transcript, and holds all its items in lists. So an item is there with its row or not at all.
"""

from __future__ import annotations

import pyarrow as pa

from dictalake.lake.schema import DOC, TRANSCRIPTS

_TEXT, _REAL, _COUNT = pa.string(), pa.float64(), pa.int32()


def _field(name: str, kind: pa.DataType, doc: str, *, required: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=not required, metadata={DOC: doc})


_ERROR = pa.struct(
    [
        _field("stage", _TEXT, "extract"),
        _field("reason", _TEXT, "stable machine-readable name of what went wrong"),
        _field("detail", _TEXT, "a sentence for people; never text of a transcript or of an answer"),
        _field("retryable", pa.bool_(), "true when another try may succeed"),
    ]
)
QUOTE = (
    _field("quote", _TEXT, "the words of the transcript that say it, as they stand there"),
    _field("places", _COUNT, "how often the quote stands in the transcript; above 1 the place may be another one"),
    _field("start_char", _COUNT, "where the quote begins in the text that was read, in characters from 0"),
    _field("end_char", _COUNT, "where it ends"),
    _field("first_word", _COUNT, "its first word in the column words of the transcript, from 1; null where no word fits"),
    _field("last_word", _COUNT, "its last word"),
    _field("start_s", _REAL, "when its first word was said, seconds from the beginning of the recording; null as first_word"),
    _field("end_s", _REAL, "when its last word ended"),
    _field("confidence", pa.float32(), "0-1, that of the least certain word under the quote; null where no word has one"),
)


def _items(*fields: pa.Field) -> pa.ListType:
    return pa.list_(pa.field("element", pa.struct([*fields, *QUOTE])))


_PROVENANCE = pa.struct(
    [
        _field("pipeline_version", _TEXT, "version of dictalake"),
        _field("git_commit", _TEXT, "commit of dictalake's source, null outside a checkout"),
        _field("kind", _TEXT, "openai, vllm or transformers"),
        _field("model", _TEXT, "language model: Hugging Face id, or name of its folder"),
        _field("revision", _TEXT, "revision of the model as extract.revision says"),
        _field("model_sha256", _TEXT, "SHA-256 over the model's files; null where a server has them"),
        _field("constrained", pa.bool_(), "whether the answers were bound to the JSON schema; null where nobody knows"),
        _field("prompt_version", _TEXT, "version of the prompt"),
        _field("schema_version", _TEXT, "version of the schema of the answers"),
        _field("versions", pa.map_(_TEXT, _TEXT), "library to version"),
        _field("extracted_at", pa.timestamp("us", tz="UTC"), "when the row was made, UTC"),
    ]
)

FINDINGS = pa.schema(
    [
        _field("recording_id", _TEXT, "recording whose transcript was read", required=True),
        _field("status", _TEXT, "ok or failed", required=True),
        _field("run_id", _TEXT, "run that wrote the row", required=True),
        _field(
            "attempt", _COUNT, "0 at first; the next number when its text changed or a failure is tried again", required=True
        ),
        _field("transcript_fingerprint", _TEXT, "fingerprint of the transcript's row that was read", required=True),
        _field("transcript_attempt", _COUNT, "attempt of that row", required=True),
        _field("corrected_sha256", _TEXT, "SHA-256 of the text as a person corrected it; null where the row's own was read"),
        _field(
            "findings",
            _items(
                _field("term", _TEXT, "what was found, in words of the quote"),
                _field("anatomy", _TEXT, "where in the body"),
                _field("side", _TEXT, "left, right, bilateral or midline, as the quote or its sentence says"),
                _field("certainty", _TEXT, "certain, probable or possible; null where the model said another than the words"),
                _field("negated", pa.bool_(), "true where the dictation says that it is absent"),
                _field("measurement", _REAL, "its size, the largest where several were said"),
                _field("unit", _TEXT, "unit of measurement"),
                _field("change", _TEXT, "against before: new, increased, decreased, unchanged or resolved"),
            ),
            "what was found or ruled out",
        ),
        _field(
            "medications",
            _items(
                _field("drug", _TEXT, "name of the drug"),
                _field("dose", _REAL, "single dose"),
                _field("unit", _TEXT, "unit of dose"),
                _field("route", _TEXT, "oral, intravenous ..."),
                _field("frequency", _TEXT, "how often, as said"),
                _field("negated", pa.bool_(), "true where it is not taken: stopped, refused, not tolerated"),
            ),
            "drugs",
        ),
        _field(
            "lab_values",
            _items(
                _field("test", _TEXT, "what was measured"),
                _field("value", _TEXT, "the value as said: 4.2, negative, below 0.01"),
                _field("number", _REAL, "the value where it is a number"),
                _field("unit", _TEXT, "unit of value"),
            ),
            "laboratory and bedside values",
        ),
        _field(
            "follow_ups",
            _items(_field("what", _TEXT, "what is to be done"), _field("when", _TEXT, "when, as said")),
            "what is to follow",
        ),
        _field("impressions", _items(), "the sentences of the impression or the summary"),
        _field("offered", _COUNT, "items that the model gave"),
        _field(
            "dropped",
            pa.map_(_TEXT, _COUNT),
            "why items were not taken, or lost a side or certainty, to how many",
        ),
        _field("parts", _COUNT, "parts in which the text was read"),
        _field("prompt_tokens", _COUNT, "tokens that the model read; null where it does not say"),
        _field("answer_tokens", _COUNT, "tokens that the model wrote; null where it does not say"),
        _field("seconds", pa.float32(), "time of the model or the server, seconds"),
        _field("error", _ERROR, "why nothing could be extracted; null when ok"),
        _field("provenance", _PROVENANCE, "what made the row"),
        _field("fingerprint", _TEXT, "partition: hash of what can change the items, 12 hex digits", required=True),
        TRANSCRIPTS.field("recorded_month"),
    ]
)
ITEM_LISTS = ("findings", "medications", "lab_values", "follow_ups", "impressions")
