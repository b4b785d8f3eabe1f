"""The Delta table ``embeddings``: vectors of the passages of transcripts, and the nearest of them to a question.

Delta Lake has no number of two bytes, and DuckDB none either, so a vector is ``dimensions`` float16, little-endian, in a binary
column: half of what Delta's float would take. A reader makes a fixed-size list of float32 of them, batch by batch.

The table holds no text: a row says where its passage stands. It belongs to a row of ``transcripts``, which never changes, or
to the text as a person corrected it, which its hash tells. Those of a text that no longer counts stay and are not looked at: an
undone correction needs no new ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import CommitProperties, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.corrections import hash_text
from dictalake.lake.delta import has_table, make_dataset, open_dataset, open_or_create_table, retry_on_conflict
from dictalake.lake.encodings import make_writer_properties
from dictalake.lake.gone_rows import drop_rows_of_gone, find_recordings
from dictalake.lake.places import EMBEDDINGS_FOLDER, PLACES, TRANSCRIPTS_FOLDER
from dictalake.lake.query import connect
from dictalake.lake.schema import EMBEDDINGS
from dictalake.lake.search import Hit
from dictalake.lake.storage import open_storage
from dictalake.lake.tombstones import Erasures

# The text that a vector belongs to: of a row of transcripts, and of a correction where there is one.
KEY = ("recording_id", "recorded_month", "fingerprint", "attempt", "corrected_sha256")
_SHOWN = "(SELECT *, sha256(text_corrected) AS corrected_sha256 FROM transcripts)"
_OF_ROW = ("recording_id", "recorded_month", "fingerprint", "attempt")
_IS_SAME = " AND ".join(f"v.{name} IS NOT DISTINCT FROM t.{name}" for name in KEY)
_BATCH_ROWS = 4096
_WRITER = make_writer_properties(EMBEDDINGS)
_PLACE = next(place for place in PLACES if place.folder == EMBEDDINGS_FOLDER)
_SNIPPET_CHARACTERS = 400


@dataclass(frozen=True)
class Encoder:
    """What vectors come from. Those of another fingerprint cannot be compared."""

    fingerprint: str
    model: str
    dimensions: int


@dataclass(frozen=True)
class Committed:
    """``rows`` of ``transcripts`` were added; passages were left out since they were there already, or are of what is gone."""

    transcripts: int
    rows: int
    already_there: int
    gone: int


class EmbeddingTable:
    """Created if it is missing. Raises ConfigError and RunError as TranscriptTable does."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._storage = open_storage(lake, EMBEDDINGS_FOLDER)
        self._transcripts = open_storage(lake, TRANSCRIPTS_FOLDER)
        self._delta = open_or_create_table(self._storage, EMBEDDINGS, (), "dictalake: vectors of passages of transcripts")

    def sweep(self) -> None:
        """Removes vectors of recordings that are erased by now: an embedding that was killed right after a commit may have left
        some. Raises RunError."""
        if Erasures(self._lake).read():
            try:
                drop_rows_of_gone(self._lake, _PLACE)
            except (OSError, DeltaError) as error:
                raise self._explain("read", error) from error

    def iter_missing(self, encoder: str) -> Iterator[dict[str, Any]]:
        """KEY, text and sections of each transcript of the view whose text, the corrected one first, has no vector of this
        encoder. A corrected text has no sections. Raises RunError."""
        keys = ", ".join(KEY)
        try:
            with connect(self._lake.uri or "", self._lake.storage_options, names=("transcripts",)) as database:
                self._delta.update_incremental()
                there = make_dataset(self._delta, self._storage, EMBEDDINGS)
                database.register("embedding_records", there)
                reader = database.sql(
                    f"""
                    SELECT {keys}, coalesce(text_corrected, text) AS text,
                        CASE WHEN text_corrected IS NULL THEN sections END AS sections
                    FROM {_SHOWN} AS t ANTI JOIN (
                        SELECT DISTINCT {keys} FROM embedding_records WHERE encoder = ?
                    ) AS v ON {_IS_SAME} WHERE trim(coalesce(text_corrected, text)) <> ''
                    """,
                    params=[encoder],
                ).to_arrow_reader(_BATCH_ROWS)
                for batch in reader:
                    yield from batch.to_pylist()
        except (OSError, DeltaError, duckdb.Error, pa.ArrowException) as error:
            raise self._explain("read", error) from error

    def commit(self, rows: pa.Table, encoder: Encoder) -> Committed:
        """Adds the rows of transcripts that have none yet; several processes may do so at once. Raises RunError.

        What an erasure took meanwhile is left out. If it comes between that look and the commit, the second look takes it out.
        """
        turn = f"embed-{encoder.fingerprint}"

        def change() -> tuple[pa.Table, int, int]:
            self._delta.update_incremental()
            fresh = _drop_known(rows, self._read_keys(rows, encoder.fingerprint))
            left = self._drop_gone(fresh)
            if left.num_rows:
                properties = CommitProperties(app_transactions=[Transaction(turn, self._delta.version() + 1)])
                write_deltalake(
                    self._delta,
                    left,
                    mode="append",
                    commit_properties=properties,
                    writer_properties=_WRITER,
                    storage_options=dict(self._storage.delta_options),
                )
            return left, rows.num_rows - fresh.num_rows, fresh.num_rows - left.num_rows

        try:
            added, already_there, gone = retry_on_conflict(self._delta, change)
            if self._drop_gone(added).num_rows < added.num_rows:
                drop_rows_of_gone(self._lake, _PLACE)
        except (OSError, DeltaError) as error:
            raise self._explain("write to", error) from error
        return Committed(added.group_by(list(KEY)).aggregate([]).num_rows, added.num_rows, already_there, gone)

    def _read_keys(self, rows: pa.Table, encoder: str) -> pa.Table:
        wanted = (ds.field("encoder") == encoder) & ds.field("recording_id").isin(rows["recording_id"].unique())
        return make_dataset(self._delta, self._storage, EMBEDDINGS).to_table(columns=list(KEY), filter=wanted)

    def _drop_gone(self, rows: pa.Table) -> pa.Table:
        there = find_recordings(self._transcripts, rows["recording_id"].unique())
        return rows.filter(pc.is_in(rows["recording_id"], value_set=there))

    def _explain(self, action: str, error: Exception) -> RunError:
        return RunError(
            f"cannot {action} the table at {self._storage.uri}: {type(error).__name__}; run the same command again to resume"
        )


def _drop_known(rows: pa.Table, known: pa.Table) -> pa.Table:
    """Without those whose transcript has vectors already."""
    there = {tuple(row.values()) for row in known.to_pylist()}
    keys = zip(*(rows[name].to_pylist() for name in KEY), strict=True)
    return rows.filter(pa.array([key not in there for key in keys], pa.bool_()))


class _Vectors:
    """The vectors of one encoder as float32, which DuckDB reads as a table; never more than a few batches are in memory."""

    def __init__(self, rows: ds.Dataset, encoder: Encoder) -> None:
        self._rows, self._encoder = rows, encoder
        columns = ("section", "start", "end")
        vector = pa.list_(pa.float32(), encoder.dimensions)
        self._schema = pa.schema([*(EMBEDDINGS.field(name) for name in (*KEY, *columns)), pa.field("vector", vector)])

    def __arrow_c_schema__(self) -> object:
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        names = [name for name in self._schema.names if name != "vector"]
        batches = self._rows.scanner(
            columns=[*names, "vector"],
            filter=ds.field("encoder") == self._encoder.fingerprint,
            batch_size=_BATCH_ROWS,
            batch_readahead=2,
            fragment_readahead=1,
        ).to_batches()
        reader = pa.RecordBatchReader.from_batches(self._schema, (self._widen(batch) for batch in batches))
        return reader.__arrow_c_stream__(requested_schema)

    def _widen(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        joined = b"".join(batch["vector"].to_pylist())
        numbers = pa.array(np.frombuffer(joined, "<f2").astype(np.float32))
        vectors = pa.FixedSizeListArray.from_arrays(numbers, self._encoder.dimensions)
        return pa.RecordBatch.from_arrays([*(batch[name] for name in self._schema.names[:-1]), vectors], schema=self._schema)


def find_similar(lake: Lake, row: Mapping[str, Any], corrected: str | None, limit: int) -> list[Hit]:
    """The ``limit`` other transcripts nearest to the passages of a row of ``transcripts`` together, or of its ``corrected``
    text. Raises RunError where that has no vectors."""
    storage = open_storage(lake, EMBEDDINGS_FOLDER)
    own = _read_vectors(open_dataset(storage, EMBEDDINGS), row, corrected) if has_table(storage) else []
    if not own:
        what = "this transcript has" if corrected is None else "the corrected text has"
        raise RunError(f"{what} no vectors yet: run dictalake embed LAKE, with the package dictalake[embedding]")
    newest = max(own, key=lambda one: one["at"])["encoder"]
    vectors = [np.frombuffer(one["vector"], "<f2").astype(np.float32) for one in own if one["encoder"] == newest]
    middle = np.mean(vectors, axis=0)
    encoder = Encoder(newest, "this encoder", len(middle))
    hits = find_nearest(lake, encoder, middle / max(float(np.linalg.norm(middle)), 1e-9), limit + 1)
    return [hit for hit in hits if hit.recording_id != row["recording_id"]][:limit]


def _read_vectors(rows: ds.Dataset, row: Mapping[str, Any], corrected: str | None) -> list[dict[str, Any]]:
    of_text = ds.field("corrected_sha256")
    condition = of_text.is_null() if corrected is None else of_text == hash_text(corrected)
    for name in _OF_ROW:
        condition &= ds.field(name) == row[name]
    return list(rows.to_table(columns=["encoder", "vector", "at"], filter=condition).to_pylist())


def find_nearest(lake: Lake, encoder: Encoder, question: np.ndarray, limit: int) -> list[Hit]:
    """The ``limit`` transcripts with the passage nearest to ``question``, float32 of length 1, by the cosine.

    Every vector is looked at, so the answer is exact. It follows the view ``transcripts`` and the corrections. Raises RunError
    without vectors of this encoder.
    """
    storage = open_storage(lake, EMBEDDINGS_FOLDER)
    if not has_table(storage):
        raise RunError(f"the lake at {lake.uri} has no vectors: run dictalake embed LAKE first")
    rows, keys = open_dataset(storage, EMBEDDINGS), ", ".join(KEY)
    with connect(lake.uri or "", lake.storage_options, names=("transcripts",)) as database:
        database.register("vectors", _Vectors(rows, encoder))
        best = f"""
            SELECT {keys}, max(score) AS score, arg_max(section, score) AS section, arg_max("start", score) AS "start",
                arg_max("end", score) AS "end"
            FROM (
                SELECT {keys}, section, "start", "end", array_inner_product(vector, ?::FLOAT[{encoder.dimensions}]) AS score
                FROM vectors
            ) AS scored GROUP BY {keys}
        """
        try:
            database.execute(f"CREATE TEMP TABLE best AS {best}", [question.astype(float).tolist()])
            if not database.sql("SELECT 1 FROM best LIMIT 1").fetchall():
                raise RunError(
                    f"the lake at {lake.uri} has no vectors of {encoder.model}: run dictalake embed LAKE with it first"
                )
            nearest = database.sql(
                f"""
                SELECT v.*, t.text_corrected FROM best AS v JOIN {_SHOWN} AS t ON {_IS_SAME}
                ORDER BY score DESC, v.recording_id LIMIT ?
                """,
                params=[limit],
            ).to_arrow_table()
            texts = database.sql(
                f"""
                SELECT {", ".join(_OF_ROW)}, coalesce(metadata['specialty'], metadata['department']) AS specialty, text,
                    sections
                FROM transcript_rows WHERE recording_id IN (SELECT unnest(?::VARCHAR[]))
                """,
                params=[nearest["recording_id"].to_pylist()],
            ).to_arrow_table()
        except (duckdb.Error, pa.ArrowException) as error:
            raise RunError(
                f"cannot search the lake at {lake.uri}: {type(error).__name__}; run the same command again"
            ) from error
    of_key = {_key_of(row): row for row in texts.to_pylist(maps_as_pydicts="lossy")}
    return [_make_hit(row, of_key[_key_of(row)]) for row in nearest.to_pylist()]


def _key_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in _OF_ROW)


def _make_hit(row: Mapping[str, Any], transcript: Mapping[str, Any]) -> Hit:
    section = row["section"]
    text = transcript["text"] if section == 0 else transcript["sections"][section - 1]["text"]
    if row["text_corrected"] is not None:
        text = row["text_corrected"]
    passage = " ".join((text or "")[row["start"] : row["end"]].split())
    if len(passage) > _SNIPPET_CHARACTERS:
        passage = f"{passage[:_SNIPPET_CHARACTERS]} …"
    return Hit(row["recording_id"], row["recorded_month"], transcript["specialty"], row["score"], ((passage, False),))
