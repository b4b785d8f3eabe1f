"""The tables that many writers fill with rows that must be there once: what differs between them.

Both have the key columns ``recording_id`` and ``attempt``, a ``status``, and the partitions ``schema.PARTITIONS``. Workers
write their rows as staged files (``staged_files``), and one kind of writer commits these (``table``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from dictalake.lake.encodings import make_options
from dictalake.lake.findings_schema import FINDINGS
from dictalake.lake.places import FINDINGS_FOLDER, TRANSCRIPTS_FOLDER
from dictalake.lake.schema import PARTITIONS, TRANSCRIPTS


@dataclass(frozen=True)
class RowTable:
    """A table's ``folder`` below the lake, its schema, and the words that a new table gets as its description."""

    folder: str
    schema: pa.Schema
    description: str

    @cached_property
    def file_schema(self) -> pa.Schema:
        """The columns that stand in its files: Delta keeps those of partitions in the log."""
        return pa.schema([field for field in self.schema if field.name not in PARTITIONS])

    @cached_property
    def parquet_options(self) -> dict[str, Any]:
        return make_options(self.file_schema)


TRANSCRIPT_ROWS = RowTable(TRANSCRIPTS_FOLDER, TRANSCRIPTS, "dictalake: one row per recording, fingerprint and attempt")
FINDING_ROWS = RowTable(FINDINGS_FOLDER, FINDINGS, "dictalake: one row per extraction from a transcript, with its items")
