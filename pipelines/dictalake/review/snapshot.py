"""A lake as the pages see it: lists and counts of few columns in memory, and whole rows from their files.

A page of a list must not wait until a million rows are read from their files. So the columns that lists show and filter are
kept (``kept_rows``), and each request takes in what the tables got or lost since.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
from deltalake.exceptions import DeltaError

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.corrections import Corrections
from dictalake.lake.delta import has_table
from dictalake.lake.gone_rows import drop_rows_of_gone
from dictalake.lake.places import ACCESSES_FOLDER, CORRECTIONS_FOLDER, PLACES, RUNS_FOLDER
from dictalake.lake.runs import RunLog
from dictalake.lake.schema import TRANSCRIPTS
from dictalake.lake.storage import open_storage
from dictalake.lake.views import VIEWS
from dictalake.review.kept_rows import KeptRows

_MOST_ANSWERS = 200  # that are remembered of one version of the lake
Answer = TypeVar("Answer")
_CHECKED = pa.schema(
    [
        ("recording_id", pa.string()),
        ("checked_by", pa.string()),
        ("checked_at", pa.timestamp("us", "UTC")),
        ("flags", pa.string()),
    ]
)


class Snapshot:
    """``query`` reads the tables ``listed`` (the view recordings, with ``speech_s``, ``uncovered_s`` and ``stage``),
    ``checked`` (corrections that count), ``stored_rows`` (every row) and ``promoted``. In each a recording has its id and a
    ``key``, which is quicker to look for: ``to_key(id)``. The methods raise RunError."""

    def __init__(self, lake: Lake) -> None:
        self._lake, self._lock = lake, threading.Lock()
        self.corrections = Corrections(lake)
        self._checked: Any = "nothing yet"
        self._run_log: RunLog | None = None
        self._runs: tuple[int | None, list[dict[str, Any]]] = (None, [])
        self._answers: tuple[Any, dict[Any, Any]] = (None, {})
        self._rows = KeptRows(lake)

    @property
    def version(self) -> tuple[Any, ...]:
        """Changes whenever what ``query`` reads does."""
        return (id(self._rows), self._rows.state, self._checked)

    def refresh(self) -> None:
        """Takes in what other processes wrote to the lake."""
        with self._lock:
            try:
                rows = self._rows
                rows.refresh()
                if rows.is_replaced:
                    self.corrections, self._run_log, self._runs = Corrections(self._lake), None, (None, [])
                if rows.is_stale:
                    rows = KeptRows(self._lake)
                    rows.refresh()
                self._refresh_checked(rows)
            except (OSError, DeltaError, duckdb.Error, pa.ArrowException) as error:
                raise RunError(f"cannot read the lake: {type(error).__name__}") from error

    def query(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
        rows = self._rows  # stays, with its folder, until the answer is there, though another thread replaces it
        with rows.database.cursor() as cursor:
            cursor.execute("USE kept; SET TimeZone = 'UTC'")
            cursor.execute(sql, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def remember(self, question: Any, answer: Callable[[], Answer]) -> Answer:
        """``answer()``, asked once for each version of the lake and ``question``."""
        version = self.version
        known, answers = self._answers
        if known != version:
            answers = {}
            self._answers = (version, answers)
        with suppress(KeyError):  # another thread may clear them at any time
            there: Answer = answers[question]
            return there
        there = answer()
        if len(answers) >= _MOST_ANSWERS:
            answers.clear()
        answers[question] = there
        return there

    def read_rows(self, recording_id: str) -> list[dict[str, Any]]:
        """All rows of a recording with all columns, the one that counts first. Reads no file without one."""
        found = self.query(
            """
            SELECT file, fingerprint, attempt, counts FROM stored_rows WHERE key = to_key($id) AND recording_id = $id
            ORDER BY counts DESC, transcribed_at DESC
            """,
            {"id": recording_id},
        )
        rows: list[dict[str, Any]] = []
        for path in dict.fromkeys(str(one["file"]) for one in found):
            rows += self._read_of_file(path, recording_id)
        current = [(one["fingerprint"], one["attempt"]) for one in found if one["counts"]]
        return sorted(rows, key=lambda row: (row["fingerprint"], row["attempt"]) not in current)

    def _read_of_file(self, path: str, recording_id: str) -> list[dict[str, Any]]:
        """The rows of a recording in one file. DuckDB decodes the ids, and of the other columns what belongs to them."""
        partitions = dict(part.split("=", 1) for part in path.split("/")[:-1] if "=" in part)
        question = "SELECT * FROM read_parquet($path, hive_partitioning = false) WHERE recording_id = $id"
        rows = self._rows
        try:
            with rows.database.cursor() as cursor:
                cursor.execute("SET TimeZone = 'UTC'")
                found = cursor.sql(question, params={"path": f"lake://{path}", "id": recording_id}).to_arrow_table()
        except (duckdb.IOException, FileNotFoundError):  # compacted or erased since: the next request knows
            return []
        return [_fill({**row, **partitions}) for row in found.to_pylist()]

    def has_recording(self, recording_id: str) -> bool:
        sql = "SELECT 1 FROM stored_rows WHERE key = to_key($id) AND recording_id = $id LIMIT 1"
        return bool(self.query(sql, {"id": recording_id}))

    def require_there(self, recording_id: str) -> None:
        """Removes what was just written about a recording if it was erased meanwhile."""
        self.refresh()
        if not self.has_recording(recording_id):
            for place in PLACES:
                if place.folder in (CORRECTIONS_FOLDER, ACCESSES_FOLDER):
                    drop_rows_of_gone(self._lake, place)

    def list_runs(self) -> list[dict[str, Any]]:
        """Records of the last runs."""
        if self._run_log is None:
            if not has_table(open_storage(self._lake, RUNS_FOLDER)):
                return []
            self._run_log = RunLog(self._lake, must_exist=True)
        version = self._run_log.follow()
        known, runs = self._runs
        if known != version:
            with duckdb.connect() as database:
                database.register("run_records", self._run_log.read())
                answer = database.execute(f"SELECT * FROM ({VIEWS['runs']}) ORDER BY started_at DESC LIMIT 30")
                names = [column[0] for column in answer.description]
                runs = [dict(zip(names, row, strict=True)) for row in answer.fetchall()]
            self._runs = (version, runs)
        return runs

    def _refresh_checked(self, kept: KeptRows) -> None:
        """Other threads see ``kept`` from here on: all that they ask for is in it."""
        self.corrections.refresh()
        version = self.corrections.version  # before the records: what another thread saves from here on is taken in next time
        if version == self._checked and kept is self._rows:
            return
        rows = [
            {
                "recording_id": one.recording_id,
                "checked_by": one.who,
                "checked_at": one.at,
                "flags": ", ".join(one.flags) or None,
            }
            for one in self.corrections.list_current()
        ]
        with kept.database.cursor() as cursor:
            cursor.execute("USE kept; SET TimeZone = 'UTC'")
            cursor.register("saved", pa.Table.from_pylist(rows, _CHECKED))
            cursor.execute("CREATE OR REPLACE TABLE checked AS SELECT to_key(recording_id) AS key, * FROM saved")
            cursor.unregister("saved")
        self._rows, self._checked = kept, version


def _fill(row: dict[str, Any]) -> dict[str, Any]:
    """``row`` with null in columns and fields that an older dictalake did not write."""
    filled = {**dict.fromkeys(TRANSCRIPTS.names), **row}
    for field in TRANSCRIPTS:
        if pa.types.is_struct(field.type) and filled[field.name] is not None:
            names = [field.type.field(place).name for place in range(field.type.num_fields)]
            filled[field.name] = {**dict.fromkeys(names), **filled[field.name]}
    return filled
