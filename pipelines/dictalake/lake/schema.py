"""The Arrow schemas of the lake's tables: the one place that says what a row holds. Each field's metadata has a ``comment``
with its unit, which Delta Lake keeps. Only types that Delta Lake has: int32/int64, float32/float64, timestamps in µs UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

# Raised when a column is added, removed or changes type: the table of another version is refused, not bent.
SCHEMA_VERSION = 6

PARTITIONS = ("fingerprint", "recorded_month")

_TEXT, _NUMBER, _REAL = pa.string(), pa.int64(), pa.float64()
_RATIO, _TIME, _FLAG = pa.float32(), pa.timestamp("us", tz="UTC"), pa.bool_()


# Spark, Databricks and Delta Lake's own tools show this key of a column's metadata as its comment.
DOC = "comment"


def _field(name: str, kind: pa.DataType, doc: str, *, required: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=not required, metadata={DOC: doc})


def _list(kind: pa.DataType) -> pa.ListType:
    return pa.list_(pa.field("element", kind))


_TEXT_MAP = pa.map_(_TEXT, _TEXT)

_SECTIONS = pa.struct(
    [
        _field("heading", _TEXT, "heading as spoken in [BRACKETS], without them; null before the first heading"),
        _field("name", _TEXT, "what it is gathered under: IMPRESSION of CONCLUSION; null where it is not known"),
        _field("text", _TEXT, "readable text under the heading"),
    ]
)

_WORDS = pa.struct(
    [
        _field("word", _TEXT, "word as decoded; markup such as {period} is a word"),
        _field("start_s", _REAL, "start, seconds from the beginning of the recording"),
        _field("end_s", _REAL, "end, seconds from the beginning of the recording"),
        _field("confidence", _RATIO, "0-1, mean over the word's pieces, or as the engine says; null where it says none"),
        _field("channel", pa.int32(), "channel that the word was said in, from 0"),
    ]
)

_NBEST = pa.struct(
    [
        _field("text", _TEXT, "another reading, markup kept"),
        _field("acoustic_score", _REAL, "natural log"),
        _field("lm_score", _REAL, "weighted language model score, natural log; 0 without one"),
        _field("total_score", _REAL, "acoustic_score + lm_score, and what hotwords were worth; natural log"),
    ]
)

_QUALITY = pa.struct(
    [
        _field("duration_s", _REAL, "length of the recording, seconds"),
        _field("speech_s", _REAL, "time with speech in it, seconds"),
        _field("uncovered_speech_s", _REAL, "speech with no word within half a second, seconds: the silent-loss alarm"),
        _field("markers_repaired", pa.int32(), "spoken markup that was misspelt or broken, and rendered all the same"),
        _field("markers_unknown", pa.int32(), "spoken markup that is not known, and stands in the text as it was said"),
        _field("clipped_ratio", _RATIO, "0-1, share of samples at full scale"),
        _field("level_dbfs", _RATIO, "root mean square level, dB below full scale; null for digital silence"),
        _field("dc_offset", _RATIO, "-1 to 1, mean of the channel that is furthest off zero, as a share of full scale"),
        _field("lost_s", _REAL, "sound that the recording had and that could not be decoded, seconds; null where unknown"),
        _field("repairs", _list(_TEXT), "what was wrong with the bytes and was read all the same: words of a closed list"),
    ]
)

_ERROR = pa.struct(
    [
        _field("stage", _TEXT, "stage that failed: load, emit, recognize (hear in the lake), decode, assemble"),
        _field("reason", _TEXT, "stable machine-readable name of what went wrong"),
        _field("detail", _TEXT, "a sentence for people; never transcript text, a URI or patient data"),
        _field("retryable", _FLAG, "true when another try may succeed"),
    ]
)

_SOURCE = pa.struct(
    [
        _field("uri", _TEXT, "where the object was read; of a file inside an archive object: URI#PATH"),
        _field("version", _TEXT, "GCS generation, S3 version id or ETag, else mtime-size"),
        _field("size_bytes", _NUMBER, "size of the object, bytes"),
        _field("modified_at", _TIME, "modification time of the object, UTC"),
        _field("sha256", _TEXT, "SHA-256 of the object's bytes, hex"),
        _field("container", _TEXT, "container found in the bytes: wav, flac, dicom ..."),
        _field("codec", _TEXT, "coding of the samples: pcm_s16le, mu_law ..."),
        _field("sample_rate_hz", pa.int32(), "stored sample rate, Hz"),
        _field("channels", pa.int32(), "stored channels"),
        _field("bits_per_sample", pa.int32(), "stored bits per sample; null where the coding has no such number"),
        _field("loader", pa.int32(), "version of the loader that read the bytes; null before version 6 and where none did"),
        _field("tracks", _list(pa.int32()), "sound track that each channel comes from, from 0; null where there is one"),
    ]
)

# The allow-list: attributes of the object and the device. None of the patient (PS3.15 Annex E), so a name cannot slip in: at
# most, and where it is asked for, a keyed hash by which those who have the key find a patient's recordings.
_DICOM = pa.struct(
    [
        _field("sop_class_uid", _TEXT, "SOP Class UID (0008,0016)"),
        _field("sop_instance_uid", _TEXT, "SOP Instance UID (0008,0018)"),
        _field("series_instance_uid", _TEXT, "Series Instance UID (0020,000E)"),
        _field("study_instance_uid", _TEXT, "Study Instance UID (0020,000D)"),
        _field("content_datetime", _TIME, "Content Date and Time (0008,0023 and 0008,0033), UTC"),
        _field("modality", _TEXT, "Modality (0008,0060)"),
        _field("manufacturer", _TEXT, "Manufacturer (0008,0070)"),
        _field("manufacturer_model_name", _TEXT, "Manufacturer's Model Name (0008,1090)"),
        _field("patient_id_hash", _TEXT, "HMAC-SHA-256 of Patient ID (0010,0020), hex; null unless configured"),
        _field("patient_name_hash", _TEXT, "HMAC-SHA-256 of Patient's Name (0010,0010), hex; null unless configured"),
        _field(
            "patient_birth_date_hash", _TEXT, "HMAC-SHA-256 of Patient's Birth Date (0010,0030), hex; null unless configured"
        ),
    ]
)

_PROVENANCE = pa.struct(
    [
        _field("run_id", _TEXT, "run that wrote the row"),
        _field("fingerprint", _TEXT, "hash of everything that can change the words, 12 hex digits"),
        _field("pipeline_version", _TEXT, "version of dictalake"),
        _field("git_commit", _TEXT, "commit of dictalake's source, null outside a checkout"),
        _field("model_id", _TEXT, "acoustic model: Hugging Face id, folder name or embedded name"),
        _field("model_revision", _TEXT, "revision of the model's repository"),
        _field("model_sha256", _TEXT, "SHA-256 of the weights, hex"),
        _field("lm_sha256", _TEXT, "SHA-256 of the language model, hex; null without one"),
        _field("decoder", _TEXT, "decoder and its engine"),
        _field("versions", _TEXT_MAP, "library to version"),
        _field("device", _TEXT, "processor that the acoustic model ran on"),
        _field("transcribed_at", _TIME, "when the row was made, UTC"),
    ]
)

_TIMINGS = pa.struct(
    [
        _field("load_ms", _RATIO, "fetching, decoding and resampling, milliseconds"),
        _field("emit_ms", _RATIO, "this recording's share of the model's or engine's time, milliseconds"),
        _field("decode_ms", _RATIO, "search, milliseconds"),
    ]
)

TRANSCRIPTS = pa.schema(
    [
        _field("recording_id", _TEXT, "blake2b-128 of URI and object version, 32 hex digits", required=True),
        _field("status", _TEXT, "ok or failed", required=True),
        _field("run_id", _TEXT, "run that wrote the row", required=True),
        _field("attempt", pa.int32(), "0 at first; a retry of a failed recording has the next number", required=True),
        _field("archive_id", _TEXT, "recording_id of the ZIP, TAR or gzip object that this is a file in; else null"),
        _field("archive_rows", pa.int32(), "how many rows that object makes in all; null where archive_id is"),
        _field("text", _TEXT, "readable text: punctuation and paragraphs rendered"),
        _field("text_raw", _TEXT, "text as decoded, markup kept"),
        _field("sections", _list(_SECTIONS), "text by heading, in order"),
        _field("words", _list(_WORDS), "words of text_raw with their times, in order of time"),
        _field("nbest", _list(_NBEST), "readings as text_raw, the best first; null unless decoding.nbest is above 1"),
        _field("confidence", _RATIO, "0-1, mean over words; null without words"),
        _field("quality", _QUALITY, "measures of the audio and of how much of it has words"),
        _field("error", _ERROR, "why the recording failed; null when ok"),
        _field("source", _SOURCE, "the bytes that the row comes from"),
        _field("dicom", _DICOM, "allow-listed attributes; null for plain audio"),
        _field("metadata", _TEXT_MAP, "other columns of the user's manifest"),
        _field("provenance", _PROVENANCE, "what made the row"),
        _field("timings", _TIMINGS, "where the time went"),
        _field("fingerprint", _TEXT, "partition: hash of everything that can change the words, 12 hex digits", required=True),
        _field("recorded_month", _TEXT, "partition: YYYY-MM of the recording, or unknown", required=True),
    ]
)

RUNS = pa.schema(
    [
        _field("run_id", _TEXT, "name of the run", required=True),
        _field("event", _TEXT, "started, finished, stopped or failed", required=True),
        _field("job", _TEXT, "backfill, nightly ..."),
        _field("at", _TIME, "when, UTC", required=True),
        _field("fingerprint", _TEXT, "fingerprint of the rows that the run writes"),
        _field("acoustic_hash", _TEXT, "sha256 of what decides the emissions: weights, dtype, windows, channel policy"),
        _field(
            "decoding_hash", _TEXT, "sha256 of what decides the words given the emissions: language model and its parameters"
        ),
        _field("formatting_hash", _TEXT, "sha256 of what decides text given text_raw: the formatter's version"),
        _field("config", _TEXT, "configuration as JSON, storage options masked"),
        _field("config_hash", _TEXT, "blake2b of config, 16 hex digits"),
        _field("pipeline_version", _TEXT, "version of dictalake"),
        _field("git_commit", _TEXT, "commit of dictalake's source, null outside a checkout"),
        _field("versions", _TEXT_MAP, "library to version"),
        _field("host", _TEXT, "machine that drove the run"),
        _field("cpus", _REAL, "logical CPUs of the cluster"),
        _field("gpus", _REAL, "GPUs of the cluster"),
        _field("archive_uri", _TEXT, "archive.uri or archive.manifest; never the URI of a recording"),
        _field("recordings", _NUMBER, "recordings in the manifest"),
        _field("skipped", _NUMBER, "recordings that were done before"),
        _field("claimed", _NUMBER, "recordings left to other runs that were at work on them"),
        _field("erased", _NUMBER, "recordings left out because they were erased"),
        _field("retried", _NUMBER, "recordings that had failed before and were tried again"),
        _field("ok", _NUMBER, "rows written with status ok"),
        _field("failed", _NUMBER, "rows written with status failed"),
        _field("audio_hours", _REAL, "audio transcribed, hours"),
        _field("wall_s", _REAL, "length of the run, seconds"),
        _field("speed", _REAL, "audio seconds per wall second"),
        _field("storage_retries", _NUMBER, "requests to the storage of the archive or the lake that were made again"),
        _field("failures", pa.map_(_TEXT, _NUMBER), "reason (stage) to number of recordings"),
    ]
)

ERASURES = pa.schema(
    [
        _field("receipt_id", _TEXT, "erasure that made the row; its receipt is receipts/<receipt_id>.json", required=True),
        _field("at", _TIME, "when, UTC", required=True),
        _field("kind", _TEXT, "what subject is a hash of: uri, study, patient", required=True),
        _field("subject", _TEXT, "blake2b-128 of kind and value, 32 hex digits", required=True),
    ]
)

FINGERPRINTS = pa.schema(
    [
        _field("at", _TIME, "when, UTC", required=True),
        _field(
            "event",
            _TEXT,
            "described: a run began with it for the first time; promoted: from then on it is production; alias: a run of this "
            "fingerprint continues under the name `other`, which says the same",
            required=True,
        ),
        _field("fingerprint", _TEXT, "fingerprint that the record is about, 12 hex digits", required=True),
        _field(
            "other", _TEXT, "promoted: fingerprint that was production before; alias: name that the lake keeps; null for none"
        ),
        _field("run_id", _TEXT, "run that wrote the record; null where a person or an upgrade did"),
        _field("promoted_by", _TEXT, "login and machine of the operator who promoted it; null where nobody was asked"),
        _field("parts", _TEXT, "described: everything that the fingerprint stands for, as JSON; hashes, names and numbers"),
    ]
)

SUPERSEDED = pa.schema(
    [
        _field("recording_id", _TEXT, "recording whose object was replaced by a newer version", required=True),
        _field("superseded_by", _TEXT, "recording that is the newest version of the same URI", required=True),
        _field("at", _TIME, "when that was written down, UTC", required=True),
    ]
)

EMBEDDINGS = pa.schema(
    [
        _field("recording_id", _TEXT, "recording whose passage this is", required=True),
        _field("recorded_month", _TEXT, "that of its row in transcripts", required=True),
        _field("fingerprint", _TEXT, "fingerprint of that row", required=True),
        _field("attempt", pa.int32(), "attempt of that row", required=True),
        _field("corrected_sha256", _TEXT, "SHA-256 of the text as a person corrected it; null where the row's own was encoded"),
        _field(
            "encoder",
            _TEXT,
            "fingerprint of the text encoder, 12 hex digits: its weights, and how it pools and cuts; vectors of two encoders "
            "cannot be compared",
            required=True,
        ),
        _field(
            "section",
            pa.int32(),
            "place in sections, from 1; 0 is the text of a row without any, or the corrected one",
            required=True,
        ),
        _field("start", pa.int32(), "first character of the passage in the text of the section, from 0", required=True),
        _field("end", pa.int32(), "character after its last one", required=True),
        _field(
            "vector",
            pa.binary(),
            "of length 1, as float16, little-endian: of 384 numbers 768 bytes",
            required=True,
        ),
        _field("at", _TIME, "when, UTC", required=True),
    ]
)

RECHECKS = pa.schema(
    [
        _field("recording_id", _TEXT, "recording that was read again", required=True),
        _field("fingerprint", _TEXT, "fingerprint of the row that it was compared with", required=True),
        _field("attempt", pa.int32(), "attempt of that row", required=True),
        _field("loader", pa.int32(), "version of the loader that read it again", required=True),
        _field("at", _TIME, "when, UTC", required=True),
        _field(
            "verdict",
            _TEXT,
            "lost: the row lacks sound, or is of what is none; complete: it holds what there is; unknown: it holds what is "
            "read now, and nobody can tell what is lost; changed: these are other bytes, and no better ones; unread: nothing "
            "is known",
            required=True,
        ),
        _field("reason", _TEXT, "why it was not read, as in error.reason; null where it was"),
        _field("missing_s", _REAL, "sound that the row lacks, seconds; null where nobody can tell how much"),
        _field("row_duration_s", _REAL, "length that the row gives, seconds"),
        _field("duration_s", _REAL, "length that was read now, seconds; null where it was not read"),
        _field("lost_s", _REAL, "sound that could not be decoded now, seconds; null where unknown"),
        _field("repairs", _list(_TEXT), "what was wrong with the bytes, in the words of quality.repairs"),
        _field("is_same", _FLAG, "whether the bytes are those of the row, by SHA-256; null where they were not fetched"),
    ]
)


CORRECTIONS = pa.schema(
    [
        _field("correction_id", _TEXT, "random name of the record, 32 hex digits", required=True),
        _field("recording_id", _TEXT, "recording, and so the version of its object, that a person worked on", required=True),
        _field("at", _TIME, "when, UTC; a later record of a recording never has an earlier time", required=True),
        _field(
            "event",
            _TEXT,
            "corrected: a person saved what was said; undone: what counted before counts again; claimed: a person began to "
            "check it; passed: a person left it to others",
            required=True,
        ),
        _field("who", _TEXT, "name of the person", required=True),
        _field("fingerprint", _TEXT, "fingerprint of the row that the person saw; null where none was open"),
        _field("attempt", pa.int32(), "attempt of that row"),
        _field("replaces", _TEXT, "correction_id of the record that counted before; null where it was the machine's text"),
        _field("old_sha256", _TEXT, "SHA-256 of the text that was replaced, hex"),
        _field("text", _TEXT, "what was said, as the person wrote it; null where the machine's text counts"),
        _field("flags", _list(_TEXT), "unintelligible, not_dictation, wrong_patient, sound_cut"),
        _field("minutes", _REAL, "time that the person spent, minutes"),
        _field("confidence", _RATIO, "confidence of the row that the person saw, 0-1"),
        _field("words", _NUMBER, "words of text, as evaluate counts them under its normaliser words; null where it is null"),
        _field("word_errors", _NUMBER, "words of that row that are wrong, missing or too many, against text"),
        _field("sampling", _TEXT, "how the recording was chosen: random, worst, or own for one that the person opened"),
    ]
)

ACCESSES = pa.schema(
    [
        _field("at", _TIME, "when, UTC", required=True),
        _field("who", _TEXT, "name of the person", required=True),
        _field("recording_id", _TEXT, "recording that the person opened", required=True),
        _field("what", _TEXT, "what was opened: page, sound, export, or list: a passage of its text in a list", required=True),
    ]
)


def make_transcripts(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as dicts → a table with exactly the schema TRANSCRIPTS; keys that are left out become null.

    Raises ValueError for a key that the schema does not have (Arrow would drop it silently) and for a missing required one.
    """
    for row in rows:
        _refuse_unknown_keys(row, TRANSCRIPTS, "")
    return conform(pa.Table.from_pylist(list(rows), schema=TRANSCRIPTS), TRANSCRIPTS)


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """``table`` with the columns, order and types of ``schema``. Raises ValueError naming the columns that do not fit."""
    missing = [name for name in schema.names if name not in table.column_names]
    extra = [name for name in table.column_names if name not in schema.names]
    if missing or extra:
        raise ValueError(f"columns do not fit the schema: missing {missing or 'none'}, unknown {extra or 'none'}")
    table = table.select(schema.names)
    empty = [field.name for field in schema if not field.nullable and table.column(field.name).null_count]
    if empty:
        raise ValueError(f"required columns hold nulls: {', '.join(empty)}")
    return table.cast(schema)


def _refuse_unknown_keys(value: Mapping[str, Any], fields: Iterable[pa.Field], path: str) -> None:
    """Looks into structs and the first element of lists: rows are made by code, so the first element speaks for all."""
    kinds = {field.name: field.type for field in fields}
    unknown = sorted(set(value) - set(kinds))
    if unknown:
        raise ValueError(f"keys that the schema does not have: {', '.join(path + key for key in unknown)}")
    for key, kind in kinds.items():
        inner = value.get(key)
        if pa.types.is_list(kind) and inner:
            inner, kind = inner[0], kind.value_type
        if pa.types.is_struct(kind) and isinstance(inner, Mapping):
            _refuse_unknown_keys(inner, [kind.field(i) for i in range(kind.num_fields)], f"{path}{key}.")
