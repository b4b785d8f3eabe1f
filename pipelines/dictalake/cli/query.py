"""Answers one question in SQL about a lake, and changes nothing in it: what is asked, how it is read, and how it is written."""

from __future__ import annotations

import codecs
import io
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from dictalake.cli.attach import attach
from dictalake.cli.tables import FORMULA, Column, defuse, print_table, show_hidden
from dictalake.config.sections import Lake
from dictalake.errors import ConfigError, DictalakeError, RunError
from dictalake.lake.query import SPILL_GB, connect, find_names, lock
from dictalake.terminal import printable

ENDINGS = {".csv": "csv", ".json": "json", ".parquet": "parquet", ".arrow": "arrow"}
_SHOWN = 1000
_BATCH_ROWS = 10_000
_NAMED = re.compile(r'\b(?:from|join)\s+"?(\w+)')
# These list all views, or read a table whose name does not stand in the question or is known to few.
_OF_ALL = re.compile(r"\b(show|query|query_table|information_schema|sqlite_master|(duckdb|pg|pragma)_\w+|recording_versions)\b")
_INTERRUPT_AGAIN_S = 0.1
# Their messages quote the question and never a row.
_ABOUT_THE_QUESTION = ("Parser Error", "Binder Error", "Catalog Error", "Permission Error", "Not implemented Error")
_UNREADABLE = "reading the stream registered as "
Result = TypeVar("Result")
Writer = Callable[[pa.Schema, Iterable[pa.RecordBatch], BinaryIO], None]


@dataclass(frozen=True)
class Limits:
    """How long DuckDB may work on a question (None: as long as it takes), and how much of the disk it may take."""

    time_s: float | None = None
    spill_gb: float = SPILL_GB


@dataclass(frozen=True)
class CsvStyle:
    """How a CSV is written. ``is_raw`` leaves texts as they are, formulas too. Excel knows UTF-8 by the mark at the beginning,
    and splits at the separator of the system's region: a comma, or in much of Europe a semicolon.
    """

    is_raw: bool = False
    separator: str = ","
    has_mark: bool = False


def answer(
    lake: Lake,
    question: str,
    form: str,
    out: Path | None,
    limits: Limits = Limits(),
    *,
    style: CsvStyle = CsvStyle(),
    attached: Mapping[str, Path] | None = None,
) -> None:
    """Writes the answer in the format ``form`` to ``out`` or standard output. Raises ConfigError, RunError.

    ``attached`` are tables of the caller's own, by name.
    """
    try:
        with (
            TemporaryDirectory(prefix="dictalake-query-") as spill,
            ask(lake, question, Path(spill), limits, attached) as (schema, batches),
        ):
            if form == "table":
                show(schema, batches)
            else:
                csv = partial(write_raw_csv if style.is_raw else write_csv, style=style)
                _write(schema, batches, csv if form == "csv" else WRITERS[form], form, out)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has enough; Python would complain once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write(schema: pa.Schema, batches: Iterable[pa.RecordBatch], write: Writer, form: str, out: Path | None) -> None:
    try:
        with open_sink(out) as sink:
            write(schema, batches, sink)
    except (pa.ArrowException, OverflowError):  # their messages may quote a value
        raise ConfigError(
            f"--format {form} has no form for a value of the answer: cast its column, such as k::VARCHAR"
        ) from None


def check_question(sql: str) -> str:
    """Raises ConfigError for anything but one statement that only reads."""
    try:
        kinds = [statement.type for statement in duckdb.extract_statements(sql)]
    except duckdb.Error as error:
        raise explain_error(error) from None
    if len(kinds) != 1:
        raise ConfigError(f"the SQL has {len(kinds)} statements: give one")
    if kinds[0] not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        allowed = "SELECT, WITH, FROM, DESCRIBE, SUMMARIZE and EXPLAIN"
        raise ConfigError(f"the SQL is a {kinds[0].name} statement: only {allowed} are answered")
    return sql


def choose_format(given: str | None, out: Path | None, is_terminal: bool) -> str:
    """``--format``, else what the ending of ``--out`` says. Raises ConfigError for what cannot be shown or written."""
    form = given or (ENDINGS.get(out.suffix.lower(), "unknown") if out else "table")
    if out and form not in ENDINGS.values():
        allowed = f"its name must end in {', '.join(ENDINGS)}, or --format be one of {', '.join(ENDINGS.values())}"
        raise ConfigError(f"--out {out}: {allowed}")
    if not out and is_terminal and form in ("parquet", "arrow"):
        raise ConfigError(f"--format {form} is not for a terminal: give --out FILE, or send it to another program")
    return form


@contextmanager
def ask(
    lake: Lake,
    question: str,
    spill: Path,
    limits: Limits = Limits(),
    attached: Mapping[str, Path] | None = None,
) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """The answer's schema and its batches, as they come; larger ones than the memory has room for spill into the folder.

    The time in which the caller does something else does not count for the limit.

    Raises ConfigError for a bad question, also while the batches come, RunError when the lake cannot be read or time is up.
    """
    worked_s = 0.0
    with (
        connect(lake.uri or "", lake.storage_options, limits.spill_gb, names=_choose_names(question)) as database,
        ThreadPoolExecutor(1, "duckdb") as pool,
    ):

        def call(function: Callable[[], Result]) -> Result:
            """Waits for DuckDB here: in the main thread it would swallow Ctrl-C and SIGTERM, or not look at them for hours."""
            nonlocal worked_s
            started, answered = time.monotonic(), pool.submit(function)
            try:
                wait([answered], None if limits.time_s is None else max(0.0, limits.time_s - worked_s))
                worked_s += time.monotonic() - started
                if not answered.done():
                    _stop_working(database, answered)
                    raise RunError(
                        f"the question took more than {limits.time_s:g} s: narrow it (a condition on recorded_month keeps "
                        "files closed), or give more with --timeout SECONDS, 0 for as long as it takes"
                    )
                return answered.result()
            except (KeyboardInterrupt, SystemExit):
                _stop_working(database, answered)
                raise

        for name, path in (attached or {}).items():
            attach(database, name, path)
        lock(database, spill)
        try:
            reader = call(lambda: database.sql(question).to_arrow_reader(_BATCH_ROWS))
            schema = reader.schema
        except duckdb.Error as error:
            raise explain_error(error) from None
        yield schema, _read(lambda: call(reader.read_next_batch))


def _choose_names(question: str) -> frozenset[str] | None:
    """What to open for the question; None is everything: the question, or the error that it ends in, needs other names."""
    names, text = find_names(question), question.lower()
    return names if names and names.issuperset(_NAMED.findall(text)) and not _OF_ALL.search(text) else None


def _stop_working(database: duckdb.DuckDBPyConnection, answered: Future[Result]) -> None:
    """Interrupts DuckDB until it has ended, whatever signals come meanwhile: the pool would wait for it without a word."""
    while True:
        try:
            while not answered.done():
                database.interrupt()
                wait([answered], _INTERRUPT_AGAIN_S)  # it may begin to work just after the first interrupt
            return
        except (KeyboardInterrupt, SystemExit):  # one more; the caller raises the first one
            continue


def _read(read_next: Callable[[], pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Errors of late batches come through Arrow, which has its own kinds."""
    while True:
        try:
            yield read_next()
        except StopIteration:
            return
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise explain_error(error) from None


def explain_error(error: Exception) -> DictalakeError:
    """One line, of which nothing was taken from a row: a failed conversion quotes the text that it could not convert."""
    message = str(error)
    if _UNREADABLE in message:
        reason = message.rpartition("failed: ")[2]
        return RunError(f"cannot read the lake's files; they may have been compacted meanwhile, ask again: {reason}")
    kind, _, rest = message.partition(": ")
    if kind in _ABOUT_THE_QUESTION:
        return ConfigError(" ".join(message.split("\n\n")[0].split()))
    if kind == "Out of Memory Error":
        return RunError(" ".join(message.split()))
    if kind == "Conversion Error":
        rest = re.sub(r"['\"].*['\"]", "'…'", rest.split("\n\nLINE ")[0], flags=re.DOTALL)
        return ConfigError(f"{kind}: {rest.splitlines()[0]}; try_cast gives NULL instead")
    return ConfigError(f"{kind}: the SQL cannot do with some value what it wants to")


@contextmanager
def open_sink(out: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that is there whole or not at all. Raises RunError when it cannot be written."""
    if out is None and sys.stdout.isatty():
        sink = io.BytesIO()  # a person looks at it, who can hardly read more than fits here
        yield sink
        sys.stdout.write(printable(sink.getvalue().decode("utf-8", "replace"), "\n"))
        return
    if out is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = out.with_name(f"{out.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(out)
    except OSError as error:
        raise RunError(f"cannot write --out {out}: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


def write_csv(schema: pa.Schema, batches: Iterable[pa.RecordBatch], sink: BinaryIO, style: CsvStyle = CsvStyle()) -> None:
    """As ``write_raw_csv``, with every text that a spreadsheet would take for a formula made harmless."""
    safe = pa.schema([field.with_name(defuse(field.name)) for field in schema])
    harmless = (pa.RecordBatch.from_arrays(batch.columns, schema=safe) for batch in batches)
    write_raw_csv(safe, harmless, sink, style, _defuse_column)


def write_raw_csv(
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    sink: BinaryIO,
    style: CsvStyle = CsvStyle(),
    change: Callable[[pa.ChunkedArray], pa.ChunkedArray] = lambda column: column,
) -> None:
    """Lists, structs and maps become JSON; null is nothing, an empty text is ``""``."""
    flat = pa.schema([field.with_type(_flat_type(field.type)) for field in schema])
    if style.has_mark:
        sink.write(codecs.BOM_UTF8)
    options = pa.csv.WriteOptions(delimiter=style.separator)
    with pa.csv.CSVWriter(pa.PythonFile(sink, mode="w"), flat, write_options=options) as writer:
        for batch in batches:
            columns = [change(column) for column in flatten(pa.Table.from_batches([batch])).columns]
            writer.write_table(pa.Table.from_arrays(columns, schema=flat))


def _defuse_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """As ``tables.defuse``, for a column of text; others stay as they are."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column
    is_formula = pc.match_substring_regex(column, FORMULA)
    if not pc.any(is_formula).as_py():
        return column
    quoted = pc.binary_join_element_wise(pa.scalar("'", column.type), column, pa.scalar("", column.type))
    return pc.if_else(is_formula, quoted, column)


def write_parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch], sink: BinaryIO) -> None:
    with pa.parquet.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


def write_arrow(schema: pa.Schema, batches: Iterable[pa.RecordBatch], sink: BinaryIO) -> None:
    with pa.ipc.new_file(pa.PythonFile(sink, mode="w"), schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def write_json(schema: pa.Schema, batches: Iterable[pa.RecordBatch], sink: BinaryIO) -> None:
    """One array with an object for each row."""
    lead = "[\n"
    for batch in batches:
        for row in batch.to_pylist(maps_as_pydicts="lossy"):
            sink.write(f"{lead}{show_hidden(json.dumps(row, default=str, ensure_ascii=False))}".encode())
            lead = ",\n"
    sink.write(b"[]\n" if lead == "[\n" else b"\n]\n")


WRITERS: dict[str, Writer] = {
    "csv": write_csv,
    "json": write_json,
    "parquet": write_parquet,
    "arrow": write_arrow,
}


def show(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """A table for eyes; one field a line where it would be wider than the terminal."""
    rows = list(itertools.islice(format_rows(schema, batches), _SHOWN + 1))
    numeric = [pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) for kind in schema.types]
    columns = [Column(name, is_number) for name, is_number in zip(schema.names, numeric, strict=True)]
    # On a terminal the lines of a text stay lines; elsewhere a row is one line.
    print_table(columns, rows[:_SHOWN], show_empty=True, keep_lines=sys.stdout.isatty())
    if len(rows) > _SHOWN:
        print(f"only the first {_SHOWN:,} rows are shown; --format csv, json, parquet or arrow gives all", file=sys.stderr)


def format_rows(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[list[str]]:
    for batch in batches:
        flat = flatten(pa.Table.from_batches([batch], schema))
        cells = [column.cast(pa.string()).to_pylist() for column in flat.columns]
        yield from (["NULL" if cell is None else cell for cell in row] for row in zip(*cells, strict=True))


def flatten(table: pa.Table) -> pa.Table:
    """``table`` with lists, structs, maps and what else has no text of its own in Arrow as JSON, and enums as text."""
    columns = [
        _to_json(column) if _is_unwritable(column.type) else column.cast(_flat_type(column.type)) for column in table.columns
    ]
    return pa.Table.from_arrays(columns, names=table.column_names)


def _flat_type(kind: pa.DataType) -> pa.DataType:
    """What ``flatten`` makes of a column of this type. Arrow makes no empty column of some, such as unions."""
    if pa.types.is_dictionary(kind):
        return _flat_type(kind.value_type)
    return pa.string() if _is_unwritable(kind) or pa.types.is_string_view(kind) else kind


def _is_unwritable(kind: pa.DataType) -> bool:
    tests = (pa.types.is_nested, pa.types.is_interval, pa.types.is_duration, pa.types.is_binary)
    return isinstance(kind, pa.OpaqueType) or any(test(kind) for test in tests)


def _to_json(column: pa.ChunkedArray) -> pa.Array:
    values: list[Any] = column.to_pylist(maps_as_pydicts="lossy")
    texts = [None if value is None else json.dumps(value, default=str, ensure_ascii=False) for value in values]
    return pa.array(texts, pa.string())
