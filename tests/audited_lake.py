"""A lake with a canary word in every place that can hold one, and a search for it over every byte of a lake."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from dictalake.config.sections import Config, Lake
from dictalake.errors import BadManifestLine, ConfigError, Erased
from dictalake.lake.claims import LeaseStore, make_lease
from dictalake.lake.contract import TABLES, Table, without_docs
from dictalake.lake.corrections import AccessLog, CorrectionRecord, Corrections
from dictalake.lake.delta import append_rows, open_or_create_table
from dictalake.lake.embeddings import KEY, EmbeddingTable, Encoder
from dictalake.lake.erase import Subjects
from dictalake.lake.findings_schema import FINDINGS
from dictalake.lake.fingerprints import FingerprintLog
from dictalake.lake.maintenance import compact
from dictalake.lake.manifests import Manifests
from dictalake.lake.places import Place
from dictalake.lake.rechecks import Recheck, RecheckLog
from dictalake.lake.reports import Reports
from dictalake.lake.row_tables import FINDING_ROWS
from dictalake.lake.runs import RunLog, RunRecord, describe_config
from dictalake.lake.schema import EMBEDDINGS, make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.storage import open_storage
from dictalake.lake.superseded import refresh_superseded
from dictalake.lake.table import TranscriptTable
from dictalake.observers.base import RunStart, observing
from dictalake.observers.openlineage import LineageEmitter
from dictalake.observers.stats import RunStats
from dictalake.records import BAD_LINE_VERSION, Recording, make_member_id, make_object_id
from dictalake.workflow import columns
from tests.extracted_lake import add_extractions, make_extraction
from tests.lake_rows import FINGERPRINT, make_row
from tests.lineage_runs import PROVENANCE

CANARY, STUDY, PATIENT = "Zebrafinch", "1.2.840.99.7", "f00d" * 16
OTHER = "000000000000"
WARD = f"gs://archive/{CANARY}"
OBJECT, PACKED, LIST = f"{WARD}/a#1.wav", f"{WARD}/b#2.zip", f"{WARD}.csv"
PLAIN = f"gs://archive/{CANARY} plain.wav"
NAMED = Subjects(uris=(OBJECT, PACKED, LIST, PLAIN), studies=(STUDY,), patients=(PATIENT,))
LATE = "late"  # of the erased study, but it came after that erasure: its row says so, and its manifest names it
UNTOUCHED = {"b", "c", LATE}  # the ids of the other rows

# What is to come: people's notes. Nothing but this line makes an erasure reach them.
NOTES = Place(
    "notes",
    "content",
    "texts",
    "rows are removed",
    pa.schema(
        [
            pa.field("recording_id", pa.string(), nullable=False),
            pa.field("at", pa.timestamp("us", "UTC")),
            ("text", pa.string()),
        ]
    ),
    names=("recording_id",),
)


def fill_lake(lake: Lake, places: tuple[Place, ...]) -> None:
    """Puts the canary into all ``places`` that can hold one, into rows, old files, and files that nobody committed."""
    object_row = make_canary_row(make_object_id(OBJECT, "1"), OBJECT)
    packed = make_object_id(PACKED, "1")
    inside = [
        make_canary_row(make_member_id(packed, PACKED, name, "1"), f"{PACKED}#{name}", archive_id=packed, archive_rows=2)
        for name in ("mon/1.wav", f"{CANARY}.wav")
    ]
    newer = make_canary_row(
        "newer", OBJECT, source={"uri": OBJECT, "version": "2", "modified_at": datetime(2026, 3, 9, tzinfo=UTC)}
    )
    bad = f"{LIST}#line-3-0123456789abcdef"
    bad_row = make_canary_row("bad", bad, source={"uri": bad, "version": BAD_LINE_VERSION}, status="failed")
    bad_row["error"] = {"stage": "load", "reason": BadManifestLine.reason, "detail": "no uri", "retryable": False}
    commit(lake, object_row, make_row("b"))
    commit(lake, newer, *inside, make_row("c"))
    commit(lake, bad_row, {**object_row, "fingerprint": OTHER}, make_row("b", fingerprint=OTHER))
    erased = {"stage": "load", "reason": Erased.reason, "detail": "it was erased and is kept out", "retryable": False}
    commit(lake, make_row(LATE, status="failed", error=erased, source=None, dicom=None))
    commit(lake, make_canary_row("dicom", f"{WARD}/d.dcm"), make_canary_row("plain", PLAIN, dicom=None))
    compact(lake)  # the files of before stay for a week
    write_staged(make_transcripts([{**object_row, "attempt": 1}, make_row("b", attempt=1)]), lake)  # its run was killed
    recordings = [
        Recording(object_row["recording_id"], OBJECT, "1", 10, metadata={"reference": CANARY}),
        Recording(packed, PACKED, "1", 10),
        Recording("bad", bad, BAD_LINE_VERSION, 0, error=BadManifestLine("bad", "line 3 of the manifest has no uri")),
        Recording(LATE, f"{WARD}/late.dcm", "1", 10, metadata={"reference": CANARY}),
        Recording("b", "gs://archive/b.wav", "1", 10),
    ]
    block = columns.recordings_to_table(recordings)
    list(Manifests(lake).write("r1", [block], block.schema))
    FingerprintLog(lake).promote_first(FINGERPRINT, "r1")
    for uri, include in ((OBJECT, "**"), ("gs://archive", f"{CANARY} plain.wav"), ("gs://archive", "**")):
        tell_run(lake, uri, include)
    Reports(lake).write("r1", f'<tr data-recording="{object_row["recording_id"]}"><td>{CANARY}</td></tr>\n')
    at = datetime(2026, 3, 2, tzinfo=UTC)
    found = {"fingerprint": FINGERPRINT, "attempt": 0, "loader": 1, "at": at}
    RecheckLog(lake).append([Recheck(recording_id=one, verdict="lost", **found) for one in (object_row["recording_id"], "b")])
    refresh_superseded(lake)
    for one, text in ((object_row["recording_id"], CANARY), ("b", "No acute fracture.")):
        Corrections(lake).save(CorrectionRecord(recording_id=one, event="corrected", who="Ann", text=text))
        AccessLog(lake).add("Ann", [one], "page")
    vectors = [make_vector(object_row, CANARY.encode()), make_vector(make_row("b"), b"dove")]
    encoder = Encoder("e" * 12, "a text encoder", 5)
    EmbeddingTable(lake).commit(pa.Table.from_pylist(vectors, schema=without_docs(EMBEDDINGS)), encoder)
    add_findings(lake, object_row["recording_id"])
    if any(place.folder == NOTES.folder for place in places):
        storage = open_storage(lake, NOTES.folder)
        open_or_create_table(storage, NOTES.schema, (), "")
        for one, text in ((object_row["recording_id"], CANARY), ("b", "No acute fracture.")):
            append_rows(
                storage, pa.Table.from_pylist([{"recording_id": one, "at": at, "text": text}], without_docs(NOTES.schema))
            )
    if "://" not in str(lake.uri):
        leave_unfinished(Path(str(lake.uri)))


def add_findings(lake: Lake, recording_id: str) -> None:
    """What was extracted from a transcript with the canary and from another one; and what a run that was killed had written."""
    item = {"term": CANARY, "quote": f"No {CANARY}", "negated": True}
    rows = [make_extraction(recording_id, findings=[item]), make_extraction("b")]
    add_extractions(lake, *rows)
    write_staged(pa.Table.from_pylist([{**row, "attempt": 1} for row in rows], schema=FINDINGS), lake, of=FINDING_ROWS)


def register(place: Place) -> None:
    """As if ``place`` stood in ``PLACES`` when the contract was made."""
    assert place.schema is not None
    TABLES[place.folder] = Table(place.schema, place.partitions)


def make_canary_row(recording_id: str, uri: str, **changes: Any) -> dict[str, Any]:
    """A row with the canary wherever content can be."""
    row = {
        "text": f"No {CANARY}.",
        "text_raw": f"no {CANARY}",
        "source": {"uri": uri, "version": "1", "modified_at": datetime(2026, 3, 1, tzinfo=UTC)},
        "dicom": {"study_instance_uid": STUDY, "patient_id_hash": PATIENT},
        "metadata": [("reference", f"no {CANARY}")],
    }
    return make_row(recording_id, **{**row, **changes})


def make_vector(row: dict[str, Any], vector: bytes) -> dict[str, Any]:
    """A row of the table of vectors, for the transcript ``row``."""
    key = {name: row.get(name) for name in KEY}
    at = datetime(2026, 3, 2, tzinfo=UTC)
    return {**key, "encoder": "e" * 12, "section": 0, "start": 0, "end": 4, "vector": vector, "at": at}


def commit(lake: Lake, *rows: dict[str, Any]) -> None:
    TranscriptTable(lake).commit(write_staged(make_transcripts(list(rows)), lake))


def tell_run(lake: Lake, uri: str, include: str) -> None:
    """The records, events and lease of a run that failed."""
    config = Config.model_validate({"archive": {"uri": uri, "include": [include]}, "lake": lake.model_dump()})
    text, config_hash = describe_config(config)
    run_id = f"20260301T013000-{config_hash[:6]}"
    record = RunRecord(run_id=run_id, event="started", config=text, config_hash=config_hash, archive_uri=uri)
    RunLog(lake).append(record)
    with suppress(ConfigError), observing([LineageEmitter(RunStats())]) as observers:
        observers.run_started(RunStart(config, replace(PROVENANCE, run_id=run_id), "nightly"))
        raise ConfigError(f"archive.uri = {uri}: there is nothing")
    LeaseStore(lake).write(make_lease(run_id, "nightly", FINGERPRINT))
    LeaseStore(lake).remove(run_id)


def leave_unfinished(root: Path) -> None:
    """Files of writers that were killed an hour ago: our own, and delta-rs's."""
    for name in (
        *("manifests/r1/.part-00001.parquet.0a.partial", "reports/.r1.html.0b.partial", "lineage/.r1.json.0c.partial"),
        *("transcripts/part-0.parquet#1", "runs/part-1.parquet#12", "transcripts/_delta_log/_commit_0d.json.tmp"),
    ):
        path = root / name
        path.write_text(CANARY, encoding="utf-8")
        os.utime(path, (1e9, 1e9))


def list_leaks(lake: Lake, folder: str = "", words: tuple[str, ...] = (CANARY, STUDY, PATIENT)) -> list[str]:
    """The objects below the lake, or a folder of it, whose name or bytes hold one of ``words``, also compressed."""
    return [path for path, content in read_all(lake, folder) if any(word.encode() in content for word in words)]


def read_all(lake: Lake, folder: str = "") -> Iterator[tuple[str, bytes]]:
    """Every object with its name and its bytes, and of a Parquet file all values and the footer too."""
    filesystem = open_storage(lake, "").filesystem
    for info in filesystem.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True)):
        if info.type != fs.FileType.File:
            continue
        with filesystem.open_input_stream(info.path) as stream:
            content = stream.read()
        if content[:4] == b"PAR1":
            file = pq.ParquetFile(io.BytesIO(content))
            content += json.dumps(file.read().to_pylist(), default=str, ensure_ascii=False).encode()
            content += str(file.metadata.to_dict()).encode()
        yield info.path, info.path.encode() + b"\n" + content
