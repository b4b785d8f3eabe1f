"""A lake of dictations, and what reads it without Ray: the stage that asks a model, and the table that takes its rows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from dictalake.config.load import load_config
from dictalake.config.sections import Config, Lake
from dictalake.extraction.provenance import ExtractProvenance, make_extract_provenance
from dictalake.extraction.rows import ExtractStage
from dictalake.extraction.work import WorkList
from dictalake.lake.finding_rows import FindingTable
from dictalake.lake.findings_schema import FINDINGS
from dictalake.lake.query import connect, find_names
from dictalake.lake.row_tables import FINDING_ROWS
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import StagedFile, write_staged
from dictalake.lake.table import TranscriptTable
from tests.lake_rows import FINGERPRINT, MONTH, make_row

TEXT = "No pleural effusion. She takes aspirin {dose} mg daily."


def make_dictation(recording_id: str, text: str, **changes: Any) -> dict[str, Any]:
    """A row of a transcript with a word a second."""
    spoken = text.lower().replace(".", " {period}").split()
    words = [
        {"word": word, "start_s": float(place), "end_s": place + 0.5, "confidence": 0.5, "channel": 0}
        for place, word in enumerate(spoken)
    ]
    return make_row(recording_id, text=text, words=words, **changes)


def add_dictations(folder: Path, *rows: dict[str, Any]) -> Lake:
    lake = Lake.model_validate({"uri": str(folder)})
    TranscriptTable(lake).commit(write_staged(make_transcripts(list(rows)), lake))
    return lake


def fill_lake(folder: Path, dictations: int = 3) -> Lake:
    """Dictations r0, r1 … which differ in the dose of a drug."""
    return add_dictations(folder, *(make_dictation(f"r{n}", TEXT.format(dose=10 + n)) for n in range(dictations)))


def make_config(lake: Lake, server: str, **keys: Any) -> Config:
    given = {"lake.uri": lake.uri, "extract.server": server, "extract.tries": 2, **{f"extract.{k}": v for k, v in keys.items()}}
    return load_config("extract-openai", [(key, str(value)) for key, value in given.items()], {})


class Run:
    """An extraction in this process: plans its work, asks, and commits when it is told to."""

    def __init__(self, config: Config, constraint: dict[str, bool | None] | None = None, **options: Any) -> None:
        self.config = config
        self.provenance: ExtractProvenance = make_extract_provenance(config, constraint or {})
        self.table = FindingTable(config.lake)
        self.table.committed(self.provenance.fingerprint)
        self.work = WorkList(config.lake, self.provenance.fingerprint, self.table.forbidden, **options)
        self.files: list[StagedFile] = []

    def ask(self) -> Run:
        stage = ExtractStage(self.config, self.provenance)
        for block in self.work.blocks(16):
            self.files += [StagedFile.from_row(row) for row in stage(block).to_pylist()]
        return self

    def commit(self) -> int:
        """How many rows were added."""
        return self.table.commit(self.files).rows if self.files else 0


def extract_all(config: Config, **options: Any) -> int:
    return Run(config, **options).ask().commit()


_AT = {"places": 1, "start_char": 0, "end_char": 4, "first_word": 1, "last_word": 2, "start_s": 1.0, "end_s": 2.0}


def make_item(quote: str, confidence: float = 0.9, **fields: Any) -> dict[str, Any]:
    return {**fields, **_AT, "quote": quote, "confidence": confidence}


def make_extraction(recording_id: str, **changes: Any) -> dict[str, Any]:
    """A row of the table ``findings`` with something in every list."""
    return {
        "recording_id": recording_id,
        "status": "ok",
        "run_id": "extract-1",
        "attempt": 0,
        "transcript_fingerprint": FINGERPRINT,
        "transcript_attempt": 0,
        "findings": [
            make_item(
                "nodule of 12 mm", term="Nodule", side="left", negated=False, measurement=12.0, unit="mm", change="increased"
            ),
            make_item("no effusion", term="effusion", negated=True),
        ],
        "medications": [
            make_item("aspirin 81 mg", 0.4, drug="Aspirin", dose=81.0, unit="mg", frequency="daily", negated=False),
            make_item("ibuprofen was stopped", drug="ibuprofen", negated=True),
        ],
        "lab_values": [make_item("potassium 4.2", test="potassium", value="4.2", number=4.2)],
        "follow_ups": [make_item("CT in three months", what="CT", when="in three months")],
        "impressions": [make_item("Growing nodule.")],
        "offered": 9,
        "dropped": [("quote_not_found", 2)],
        "parts": 1,
        "provenance": {"kind": "openai", "model": "gemma", "extracted_at": datetime(2026, 3, 2, tzinfo=UTC)},
        "fingerprint": "0123456789ab",
        "recorded_month": MONTH,
        **changes,
    }


def add_extractions(lake: Lake, *rows: dict[str, Any]) -> None:
    FindingTable(lake).commit(write_staged(pa.Table.from_pylist(list(rows), schema=FINDINGS), lake, of=FINDING_ROWS))


def select(lake: Lake, sql: str) -> list[tuple[Any, ...]]:
    with connect(lake.uri or "", names=find_names(sql)) as database:
        return database.sql(sql).fetchall()
