"""What there is to extract: transcripts that have no row under this fingerprint, or another text than when they were read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.extraction.transcripts import choose_text
from dictalake.lake.manifests import Manifests
from dictalake.lake.query import connect
from dictalake.lake.tombstones import ErasedSubjects

# A line of the work, as the manifest of the run holds it. ``uri`` and ``version``, which manifests of transcriptions have, are
# empty: nothing in it is about a person.
WORK = pa.schema(
    [
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("uri", pa.string()),
        pa.field("version", pa.string()),
        pa.field("recorded_month", pa.string(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
    ]
)
_CLAIMED = pa.schema([WORK.field("recording_id")])
_BATCH = 4096

# Of each current transcript the last extraction under the fingerprint, and what is to be done with it.
_PLAN = """
    CREATE OR REPLACE TEMP TABLE work AS
    WITH last AS (
        SELECT recording_id, attempt, status, transcript_fingerprint, transcript_attempt, corrected_sha256
        FROM finding_rows WHERE fingerprint = $fingerprint
        QUALIFY row_number() OVER (PARTITION BY recording_id ORDER BY attempt DESC) = 1
    ),
    current_text AS (
        SELECT recording_id, recorded_month, fingerprint, attempt, {corrected} AS corrected_sha256 FROM transcripts
        QUALIFY row_number() OVER (PARTITION BY recording_id ORDER BY recorded_month DESC) = 1
    )
    SELECT t.recording_id, t.recorded_month, coalesce(l.attempt + 1, 0) AS attempt,
        CASE WHEN l.recording_id IS NULL THEN 'new'
            WHEN l.transcript_fingerprint <> t.fingerprint OR l.transcript_attempt <> t.attempt
                OR l.corrected_sha256 IS DISTINCT FROM t.corrected_sha256 THEN 'changed'
            WHEN l.status = 'failed' THEN 'failed' ELSE 'done' END AS state,
        t.recording_id IN (SELECT recording_id FROM claimed) AS is_claimed
    FROM current_text AS t LEFT JOIN last AS l ON l.recording_id = t.recording_id
"""

# What a run was to do and has no row yet, by its own manifest: another run may have committed the row.
_MISSING = """
    CREATE OR REPLACE TEMP TABLE work AS
    SELECT t.recording_id, t.recorded_month, m.attempt, 'new' AS state, false AS is_claimed
    FROM manifest AS m JOIN (
        SELECT recording_id, max(recorded_month) AS recorded_month FROM transcripts GROUP BY recording_id
    ) AS t ON t.recording_id = m.recording_id
    WHERE NOT EXISTS (
        FROM finding_rows AS f
        WHERE f.fingerprint = $fingerprint AND f.recording_id = m.recording_id AND f.attempt >= m.attempt
    )
"""


@dataclass(frozen=True)
class Counts:
    """Transcripts: ``found`` in all, ``done`` before, of which ``failed`` did, ``claimed`` by other runs, ``erased``, with
    another text than when they were read (``changed``), and ``pending``, which is the work."""

    found: int = 0
    done: int = 0
    failed: int = 0
    claimed: int = 0
    erased: int = 0
    changed: int = 0
    pending: int = 0


class WorkList:
    """The work as DuckDB holds it. Make it after the table of findings was read: what is committed later is checked then."""

    def __init__(
        self,
        lake: Lake,
        fingerprint: str,
        forbidden: ErasedSubjects,
        others: Sequence[str] = (),
        *,
        retry_failed: bool = False,
        left_of: str | None = None,
    ) -> None:
        """``others`` are live runs whose work is left to them. With ``left_of`` it is what this run has not done of its own.

        Raises ConfigError, RunError.
        """
        self._states = ("new", "changed", "failed") if retry_failed else ("new", "changed")
        self._database = connect(lake.uri or "", lake.storage_options, names=("transcripts", "finding_rows"))
        manifests = Manifests(lake)
        self._database.register("claimed", manifests.find(list(others), _CLAIMED))
        _, corrected = choose_text(self._database)
        plan = _PLAN.format(corrected=corrected)
        if left_of is not None:
            plan = _MISSING
            self._database.register("manifest", manifests.find([left_of], WORK))
        self._execute(plan, {"fingerprint": fingerprint})
        self._leave_out(forbidden)
        self.counts = self._count()

    def close(self) -> None:
        self._database.close()

    def blocks(self, rows: int) -> Iterator[pa.Table]:
        """The work in blocks of at most so many transcripts, those of one month together."""
        reader = self._read(
            f"""
            SELECT recording_id, '' AS uri, '' AS version, recorded_month, CAST(attempt AS INTEGER) AS attempt
            FROM work WHERE {self._condition} ORDER BY recorded_month, recording_id
            """,
            rows,
        )
        waiting = pa.table([[]] * len(WORK), schema=WORK)
        for batch in reader:
            waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch]).cast(WORK)])
            while waiting.num_rows >= rows:
                yield waiting.slice(0, rows).combine_chunks()
                waiting = waiting.slice(rows)
        if waiting.num_rows:
            yield waiting.combine_chunks()

    @property
    def _condition(self) -> str:
        states = ", ".join(f"'{state}'" for state in self._states)
        return f"state IN ({states}) AND NOT is_claimed AND recording_id NOT IN (SELECT recording_id FROM erased)"

    def _leave_out(self, forbidden: ErasedSubjects) -> None:
        """Leaves out what was erased, where its transcript is not gone yet."""
        self._execute("CREATE OR REPLACE TEMP TABLE erased (recording_id VARCHAR)")
        if not forbidden:
            return
        reader = self._read(
            "SELECT recording_id, source.uri AS uri, source.version AS version, archive_id, dicom FROM transcripts", _BATCH
        )
        covered = [row["recording_id"] for batch in reader for row in batch.to_pylist() if _covers(row, forbidden)]
        if covered:
            self._database.register("covered", ds.dataset(pa.table({"recording_id": pa.array(covered, pa.string())})))
            self._execute("INSERT INTO erased FROM covered")

    def _count(self) -> Counts:
        [row] = self._execute(
            f"""
            SELECT count(*), count(*) FILTER (state IN ('done', 'failed')), count(*) FILTER (state = 'failed'),
                count(*) FILTER (is_claimed), (SELECT count(*) FROM erased), count(*) FILTER (state = 'changed'),
                count(*) FILTER ({self._condition})
            FROM work
            """
        ).fetchall()
        return Counts(*row)

    def _read(self, query: str, rows: int) -> pa.RecordBatchReader:
        try:
            return self._database.sql(query).to_arrow_reader(rows)
        except (duckdb.Error, OSError, pa.ArrowException) as error:  # as below
            raise RunError(f"cannot read the lake ({type(error).__name__}); run the same command again") from None

    def _execute(self, query: str, parameters: dict[str, Any] | None = None) -> duckdb.DuckDBPyConnection:
        try:
            return self._database.execute(query, parameters)
        except (duckdb.Error, OSError, pa.ArrowException) as error:  # their messages may quote paths
            raise RunError(f"cannot read the lake ({type(error).__name__}); run the same command again") from None


def _covers(row: dict[str, Any], forbidden: ErasedSubjects) -> bool:
    is_named = bool(row["uri"]) and forbidden.covers_recording(row["uri"], row["version"], row["archive_id"])
    return is_named or forbidden.covers_dicom(row["dicom"])
