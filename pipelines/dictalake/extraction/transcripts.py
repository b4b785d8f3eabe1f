"""Reads the transcripts that count: the view ``transcripts``, the text of a person's correction first."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.query import connect

_MEMORY = "500MB"


@dataclass(frozen=True)
class Transcript:
    """A transcript as it is read. ``corrected_sha256`` is of ``text`` where a person corrected it, else None."""

    recording_id: str
    recorded_month: str
    fingerprint: str
    attempt: int
    text: str
    corrected_sha256: str | None
    words: Sequence[dict[str, Any]]

    @property
    def is_corrected(self) -> bool:
        return self.corrected_sha256 is not None


def choose_text(database: duckdb.DuckDBPyConnection) -> tuple[str, str]:
    """The text of a row of the view ``transcripts`` in SQL, and the hash of a person's correction, else null.

    The view of a lake in which texts can be corrected has the column ``text_corrected``.
    """
    if "text_corrected" in database.sql("FROM transcripts LIMIT 0").columns:
        return "coalesce(text_corrected, text, '')", "sha256(text_corrected)"
    return "coalesce(text, '')", "CAST(NULL AS VARCHAR)"


class TranscriptReader:
    """Reads transcripts by their ids, in a worker. It keeps the lake open, and opens it again where files are gone."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._database: duckdb.DuckDBPyConnection | None = None
        self._lock = threading.Lock()

    def read(self, recording_ids: Sequence[str], months: Sequence[str]) -> dict[str, Transcript]:
        """Those that are there, by id. ``months`` are theirs: the files of others stay closed. Raises RunError."""
        with self._lock:
            try:
                rows = self._query(recording_ids, months)
            except (duckdb.Error, OSError, pa.ArrowException):  # an erasure or a vacuum removed a file
                self._database = None
                try:
                    rows = self._query(recording_ids, months)
                except (duckdb.Error, OSError, pa.ArrowException) as error:  # their messages may quote paths
                    raise RunError(f"cannot read transcripts of the lake ({type(error).__name__}); run again") from None
        return {row["recording_id"]: Transcript(**row) for row in rows}

    def _query(self, recording_ids: Sequence[str], months: Sequence[str]) -> list[dict[str, Any]]:
        if self._database is None:
            self._database = connect(self._lake.uri or "", self._lake.storage_options, names=("transcripts",))
            self._database.execute(f"SET memory_limit = '{_MEMORY}'")
            self._database.execute("SET threads = 1")
        text, corrected = choose_text(self._database)
        in_months = ", ".join(f"'{month}'" for month in sorted(set(months)))
        answer = self._database.sql(
            f"""
            SELECT recording_id, recorded_month, fingerprint, attempt, {text} AS text, {corrected} AS corrected_sha256,
                coalesce(words, []) AS words
            FROM transcripts WHERE recorded_month IN ({in_months}) AND recording_id IN (SELECT unnest(?))
            """,
            params=[list(recording_ids)],
        )
        return list(answer.to_arrow_table().to_pylist())
