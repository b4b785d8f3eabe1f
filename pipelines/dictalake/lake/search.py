"""Full-text search over the transcripts of a lake, with an index on this machine (tantivy).

The index is derived. It can be deleted at any time, and ``refresh`` brings it up to the present view ``transcripts``. It holds
the texts, so it is patient data: only its owner can read its folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import tantivy
from filelock import FileLock
from platformdirs import user_cache_path

from dictalake.config.sections import Lake
from dictalake.errors import ConfigError, RunError
from dictalake.lake.corrections import find_version
from dictalake.lake.delta import open_table
from dictalake.lake.fingerprints import read_fingerprints
from dictalake.lake.places import CORRECTIONS_FOLDER, TRANSCRIPTS_FOLDER
from dictalake.lake.query import connect
from dictalake.lake.row_search import list_files
from dictalake.lake.schema import TRANSCRIPTS
from dictalake.lake.storage import open_storage
from dictalake.lake.superseded import sum_up_files

FIELDS = ("text", "recorded_month", "specialty", "recording_id")
_KEY = ("recording_id", "recorded_month", "fingerprint", "attempt")  # identifies a row; the first two identify a recording
_FORMAT = 3  # version of the index; an index of another version is rebuilt
_HEAP_BYTES = 256_000_000
_BATCH_ROWS = 10_000
_SNIPPET_CHARACTERS = 160
# tantivy's parser calls itself at each parenthesis, and ends the process where the stack ends.
_MOST_CHARACTERS, _MOST_NESTED = 4000, 32
_UNFINISHED = "unfinished"  # a file beside an index while rows are being added
_NOTHING_KNOWN = TRANSCRIPTS.empty_table().select(_KEY).append_column("correction_id", pa.array([], pa.string()))
# What a search finds: the words of people where they corrected those of the machine. An empty id is no correction.
_SHOWN = """(
    SELECT t.*, coalesce(k.correction_id, '') AS correction_id
    FROM transcripts AS t LEFT JOIN corrections AS k ON k.recording_id = t.recording_id
)"""
_NOTHING_EVER = TRANSCRIPTS.empty_table().select(["recording_id"])  # what was in the index: deleted words may stay in its files


def default_folder(uri: str) -> Path:
    """A folder of its own for each lake; paths are told apart from where the command runs."""
    place = uri if "://" in uri else str(Path(uri).absolute())
    return user_cache_path("dictalake") / "search" / blake2b(place.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Hit:
    """A transcript that was found. ``snippet`` is a piece of its text in parts, each with whether it matches the query."""

    recording_id: str
    recorded_month: str
    specialty: str | None
    score: float
    snippet: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class Refreshed:
    """The numbers of rows that a refresh added to and removed from an index."""

    added: int
    removed: int


class TextIndex:
    """The index of one lake in ``folder``, which is created if it is missing; only its owner can read it.

    Raises ConfigError if the folder holds other files, or cannot be created.
    """

    def __init__(self, lake: Lake, folder: Path) -> None:
        self._lake, self._folder = lake, folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            strangers = [path.name for path in folder.iterdir() if path.name not in ("lock", "current") and not _is_ours(path)]
            if not strangers:
                folder.chmod(0o700)
        except OSError as error:
            raise ConfigError(f"--index {folder}: {error.strerror or error}; give a folder that can be written") from None
        if strangers:
            raise ConfigError(f"--index {folder} holds other files ({strangers[0]} …): give an empty or a new folder")

    def refresh(self) -> Refreshed:
        """Brings the index up to the present lake. Raises RunError if there is no lake or it cannot be read.

        A recording that the view no longer shows, since it was replaced, is taken out. If one has left the lake (``dictalake
        forget``), the index is rebuilt, so that no trace of it is left. So it is where the table was restored from a backup.
        """
        with FileLock(self._folder / "lock"):
            state = self._find_state()  # not before: who waits for another refresh would find the index newer than the lake
            current = self._current()
            self._delete_all_but(current)  # leftovers of an interrupted refresh
            if current is not None and (current / _UNFINISHED).exists():
                current = None  # it may hold rows that known.parquet does not name, whose erasure would go unnoticed
            there = None if current is None else json.loads((current / "state.json").read_text(encoding="utf-8"))
            if there == state:
                return Refreshed(0, 0)
            is_same = there is not None and (there["format"], there["table"]) == (state["format"], state["table"])
            is_restored = (
                there is not None and is_same and there["version"] >= state["version"] and there.get("files") != state["files"]
            )
            with connect(self._lake.uri or "", self._lake.storage_options, names=("transcripts", "corrections")) as database:
                is_kept = is_same and not is_restored and current is not None
                known = pq.read_table(current / "known.parquet") if is_kept and current else _NOTHING_KNOWN
                ever = pq.read_table(current / "ever.parquet") if is_kept and current else _NOTHING_EVER
                database.register("known", known)
                database.register("ever", ever)
                good = "(SELECT recording_id FROM transcript_rows WHERE status = 'ok')"
                if _count(database, f"ever ANTI JOIN {good} USING (recording_id)"):  # erased
                    is_kept, ever = False, _NOTHING_EVER
                gone = _count(database, "known ANTI JOIN transcripts USING (recording_id, recorded_month)")
                if not is_kept or current is None:
                    current = self._begin()
                    for name, table_of_none in (("known", _NOTHING_KNOWN), ("ever", _NOTHING_EVER)):
                        database.unregister(name)
                        database.register(name, table_of_none)
                (current / _UNFINISHED).touch()
                added = _take_in(database, current)
                now = database.sql(f"SELECT {', '.join(_KEY)}, correction_id FROM {_SHOWN}").to_arrow_table()
                ever = database.sql("SELECT recording_id FROM ever UNION SELECT recording_id FROM transcripts").to_arrow_table()
            _write(current, now, ever, state)
            (current / _UNFINISHED).unlink()
            self._switch_to(current)
        return Refreshed(added, gone)

    def _find_state(self) -> dict[str, Any]:
        """What tells whether the index is of the lake as it is now."""
        table = open_table(open_storage(self._lake, TRANSCRIPTS_FOLDER), TRANSCRIPTS, to_read=True)
        return {
            "format": _FORMAT,
            "table": str(table.metadata().id),
            "version": table.version(),
            "files": sum_up_files(list_files(table)),
            "corrections": find_version(open_storage(self._lake, CORRECTIONS_FOLDER)),
            "promotions": [list(names) for names in read_fingerprints(self._lake).promoted],
        }

    def search(self, words: str, limit: int) -> list[Hit]:
        """The ``limit`` best transcripts for ``words`` in tantivy's query language, the best first.

        Raises ConfigError for a query that tantivy cannot parse, or that is too long or too deep for its parser.
        """
        _require_small(words)
        current = self._current()
        if current is None:
            raise RunError("there is no index yet: call refresh first")
        index = tantivy.Index.open(str(current / "index"))
        searcher = index.searcher()
        try:
            query = index.parse_query(_write_minus(words), ["text"])
        except ValueError as error:
            raise ConfigError(
                f'the words cannot be understood: {error}; plain words, "phrases in quotation marks", AND, OR, NOT or -, '
                f"parentheses and field:word are allowed, fields are {', '.join(FIELDS)}"
            ) from None
        snippets = tantivy.SnippetGenerator.create(searcher, query, index.schema, "text")
        snippets.set_max_num_chars(_SNIPPET_CHARACTERS)
        return [
            _make_hit(searcher.doc(address), score, snippets) for score, address in searcher.search(query, max(1, limit)).hits
        ]

    def _current(self) -> Path | None:
        pointer = self._folder / "current"
        folder = self._folder / pointer.read_text(encoding="utf-8") if pointer.exists() else None
        return folder if folder is not None and (folder / "state.json").exists() else None

    def _begin(self) -> Path:
        folder = self._folder / f"index-{uuid.uuid4().hex}"
        (folder / "index").mkdir(parents=True, mode=0o700)
        tantivy.Index(_make_schema(), str(folder / "index"))
        return folder

    def _switch_to(self, folder: Path) -> None:
        """Switches atomically: readers see the whole old index or the whole new one."""
        _replace(self._folder / "current", folder.name.encode())
        self._delete_all_but(folder)

    def _delete_all_but(self, folder: Path | None) -> None:
        for other in self._folder.iterdir():
            if _is_ours(other) and other != folder:
                shutil.rmtree(other, ignore_errors=True)


def clear_indexes(root: Path, table_id: str) -> int:
    """Deletes the indexes below ``root`` of the lake with this table, and those of which nobody knows the lake, as their first
    refresh was interrupted; returns how many. A search that is at work on one is waited for."""
    cleared = 0
    for folder in (path for path in root.iterdir() if path.is_dir()):
        with FileLock(folder / "lock"):
            pointer = folder / "current"
            name = pointer.read_text(encoding="utf-8") if pointer.exists() else ""
            state = folder / name / "state.json"
            if name and state.exists() and json.loads(state.read_text(encoding="utf-8"))["table"] != table_id:
                continue
            pointer.unlink(missing_ok=True)
            for path in filter(_is_ours, folder.iterdir()):
                shutil.rmtree(path, ignore_errors=True)
                cleared += 1
    return cleared


def _require_small(words: str) -> None:
    """Counts parentheses in quotation marks too: which those are is the parser's to say. Raises ConfigError."""
    if len(words) > _MOST_CHARACTERS:
        raise ConfigError(f"the words have {len(words):,} characters: give {_MOST_CHARACTERS:,} at most")
    nested = 0
    for mark in words:
        nested = max(0, nested + {"(": 1, ")": -1}.get(mark, 0))
        if nested > _MOST_NESTED:
            raise ConfigError(f"the words have more than {_MOST_NESTED} parentheses inside each other: give fewer")


def _write_minus(words: str) -> str:
    """Rewrites ``AND NOT x`` as ``AND -x`` outside quotation marks: tantivy's clause for the former matches nothing."""
    return re.sub(r'"[^"]*"|\bAND\s+NOT\s+', lambda found: found[0] if found[0].startswith('"') else "AND -", words)


def _is_ours(path: Path) -> bool:
    return path.is_dir() and re.fullmatch("index-[0-9a-f]{32}", path.name) is not None


def _make_schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("text", stored=True, tokenizer_name="en_stem")
    for name in ("key", "recording_id", "recorded_month", "specialty"):
        builder.add_text_field(name, stored=True, tokenizer_name="raw", index_option="basic")
    return builder.build()


def _count(database: duckdb.DuckDBPyConnection, what: str) -> int:
    ((count,),) = database.sql(f"SELECT count(*) FROM {what}").fetchall()
    return int(count)


def _take_in(database: duckdb.DuckDBPyConnection, folder: Path) -> int:
    """Takes out what the view no longer shows, and adds the unknown rows, each in place of an older row of the same recording;
    returns how many were added.
    """
    left = "SELECT recording_id, recorded_month FROM known ANTI JOIN transcripts USING (recording_id, recorded_month)"
    gone = [f"{recording_id}/{month}" for recording_id, month in database.sql(left).fetchall()]
    fresh = database.sql(
        f"""
        SELECT recording_id, recorded_month, coalesce(text_corrected, text) AS text,
            coalesce(metadata['specialty'], metadata['department']) AS specialty
        FROM {_SHOWN} ANTI JOIN known USING ({", ".join(_KEY)}, correction_id)
        """
    ).to_arrow_reader(_BATCH_ROWS)
    writer = tantivy.Index.open(str(folder / "index")).writer(_HEAP_BYTES)
    for key in gone:
        writer.delete_documents_by_term("key", key)
    added = 0
    for row in _rows(fresh):
        key = f"{row['recording_id']}/{row['recorded_month']}"
        writer.delete_documents_by_term("key", key)
        writer.add_document(tantivy.Document(key=key, **{name: value for name, value in row.items() if value is not None}))
        added += 1
    writer.commit()
    writer.wait_merging_threads()
    return added


def _rows(reader: pa.RecordBatchReader) -> Iterator[dict[str, Any]]:
    for batch in reader:
        yield from batch.to_pylist()


def _write(folder: Path, known: pa.Table, ever: pa.Table, state: dict[str, Any]) -> None:
    """Records what the index holds, and held; it is written after the index itself."""
    for name, table in (("known", known), ("ever", ever)):
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer)
        _replace(folder / f"{name}.parquet", buffer.getvalue().to_pybytes())
    _replace(folder / "state.json", json.dumps(state).encode())


def _replace(path: Path, content: bytes) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(content)
    os.replace(other, path)


def _make_hit(document: tantivy.Document, score: float, snippets: tantivy.SnippetGenerator) -> Hit:
    snippet = snippets.snippet_from_doc(document)
    text, parts, end = snippet.fragment().encode(), list[tuple[str, bool]](), 0  # ranges count bytes
    for piece in snippet.highlighted():
        parts += [(text[end : piece.start].decode(), False), (text[piece.start : piece.end].decode(), True)]
        end = piece.end
    parts.append((text[end:].decode(), False))
    return Hit(
        recording_id=str(document.get_first("recording_id")),
        recorded_month=str(document.get_first("recorded_month")),
        specialty=document.get_first("specialty"),
        score=score,
        snippet=tuple(part for part in parts if part[0]),
    )
