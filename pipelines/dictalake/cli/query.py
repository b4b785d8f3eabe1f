"""Asks the lake a question in SQL and changes nothing in it.

    dictalake query --lake.uri gs://lake/speech "SELECT recorded_month, count(*) FROM transcripts GROUP BY ALL"
    dictalake query --lake.uri gs://lake/speech --file infra/queries/volume_by_month.sql --out volume.parquet

Views: transcripts (newest good row of each recording), transcript_words, transcript_sections, failures, runs and history (every
row). The language is DuckDB's. A condition on recorded_month keeps the files of other months closed. As a table the first 1,000
rows are shown, in CSV, Parquet and Arrow (an IPC file) all are written.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dictalake.cli.options import make_parser, parse, read_config
from dictalake.config.sections import Lake
from dictalake.errors import ConfigError, DictalakeError, RunError
from dictalake.lake.query import connect, lock

ENDINGS = {".csv": "csv", ".parquet": "parquet", ".arrow": "arrow"}
_SHOWN = 1000
_BATCH_ROWS = 10_000
_OPTION = re.compile(r"--[\w.-]+(=.*)?", re.DOTALL)
# Their messages quote the question and never a row.
_ABOUT_THE_QUESTION = ("Parser Error", "Binder Error", "Catalog Error", "Permission Error", "Not implemented Error")
_UNREADABLE = "reading the stream registered as "


def main(argv: list[str] | None = None) -> int:
    sql, options = split_sql(sys.argv[1:] if argv is None else argv)
    parser = make_parser("query", __doc__ or "")
    parser.usage = 'dictalake query --lake.uri LAKE [options] ("SQL" | --file FILE)'
    parser.add_argument("--file", type=Path, help="take the SQL from this file")
    parser.add_argument(
        "--format", choices=("table", *ENDINGS.values()), help="by default the ending of --out says, else table"
    )
    parser.add_argument("--out", type=Path, help="write to this file: .csv, .parquet or .arrow")
    arguments, overrides = parse(parser, options)
    question = check_question(read_question(sql, arguments.file))
    form = choose_format(arguments.format, arguments.out, sys.stdout.isatty())
    lake = read_config(arguments, overrides).lake
    try:
        with TemporaryDirectory(prefix="dictalake-query-") as spill, ask(lake, question, Path(spill)) as (schema, batches):
            if form == "table":
                show(schema, batches)
            else:
                with open_sink(arguments.out) as sink:
                    WRITERS[form](schema, batches, sink)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads, such as head, has enough; Python would complain once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def split_sql(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """The SQL, the one argument that is neither an option nor an option's value, and the rest: every option has a value.

    Raises ConfigError when there are several.
    """
    questions, options = [], []
    arguments = iter(argv)
    for argument in arguments:
        if argument == "-h" or argument == "--help":
            options.append(argument)
        elif match := _OPTION.fullmatch(argument):
            options += [argument] if match[1] else [argument, *itertools.islice(arguments, 1)]
        else:
            questions.append(argument)
    if len(questions) > 1:
        raise ConfigError(f"{len(questions)} questions were given, one is answered: put the SQL into quotation marks")
    return (questions[0] if questions else None), options


def read_question(sql: str | None, file: Path | None) -> str:
    """Raises ConfigError unless exactly one of the two is given and can be read."""
    if (sql is None) == (file is None):
        raise ConfigError('give either the SQL in quotation marks, dictalake query "SELECT …", or --file FILE')
    if file is None:
        return str(sql)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--file {file} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from None


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
        raise ConfigError(f"--out {out}: its name must end in {', '.join(ENDINGS)}, or --format be one of csv, parquet, arrow")
    if not out and is_terminal and form in ("parquet", "arrow"):
        raise ConfigError(f"--format {form} is not for a terminal: give --out FILE, or send it to another program")
    return form


@contextmanager
def ask(lake: Lake, question: str, spill: Path) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """The answer's schema and its batches, as they come; larger ones than the memory has room for spill into the folder.

    Raises ConfigError for a bad question, also while the batches come, RunError when the lake cannot be read.
    """
    with connect(lake.uri or "", lake.storage_options) as database:
        lock(database, spill)
        try:
            reader = database.sql(question).to_arrow_reader(_BATCH_ROWS)
            schema = reader.schema
        except duckdb.Error as error:
            raise explain_error(error) from None
        yield schema, _read(reader)


def _read(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """Errors of late batches come through Arrow, which has its own kinds."""
    while True:
        try:
            yield reader.read_next_batch()
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


def write_csv(schema: pa.Schema, batches: Iterable[pa.RecordBatch], sink: BinaryIO) -> None:
    """Lists, structs and maps become JSON; null is nothing, an empty text is ``""``."""
    flat = flatten(schema.empty_table()).schema
    with pa.csv.CSVWriter(pa.PythonFile(sink, mode="w"), flat) as writer:
        for batch in batches:
            writer.write_table(flatten(pa.Table.from_batches([batch])))


def write_parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch], sink: BinaryIO) -> None:
    with pa.parquet.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


def write_arrow(schema: pa.Schema, batches: Iterable[pa.RecordBatch], sink: BinaryIO) -> None:
    with pa.ipc.new_file(pa.PythonFile(sink, mode="w"), schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


WRITERS: dict[str, Callable[[pa.Schema, Iterable[pa.RecordBatch], BinaryIO], None]] = {
    "csv": write_csv,
    "parquet": write_parquet,
    "arrow": write_arrow,
}


def show(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """A table for eyes on a terminal, else lines of columns with two spaces between them."""
    rows = list(itertools.islice(format_rows(schema, batches), _SHOWN + 1))
    numeric = [pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) for kind in schema.types]
    if sys.stdout.isatty():
        table = Table()
        for name, is_number in zip(schema.names, numeric, strict=True):
            table.add_column(Text(printable(name)), justify="right" if is_number else "left", overflow="fold")
        for row in rows[:_SHOWN]:
            table.add_row(*(Text(printable(cell, keep="\n")) for cell in row))
        Console().print(table)
    else:
        for line in align_columns([schema.names, *rows[:_SHOWN]], numeric):
            print(line)
    if len(rows) > _SHOWN:
        print(f"only the first {_SHOWN:,} rows are shown; --format csv, parquet or arrow gives all", file=sys.stderr)


def format_rows(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[list[str]]:
    for batch in batches:
        flat = flatten(pa.Table.from_batches([batch], schema))
        cells = [column.cast(pa.string()).to_pylist() for column in flat.columns]
        yield from (["NULL" if cell is None else cell for cell in row] for row in zip(*cells, strict=True))


def align_columns(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> Iterator[str]:
    """One line a row, numbers to the right. What would break a line is written as in Python: a line end is \\n."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = [c.rjust(w) if is_right else c.ljust(w) for c, w, is_right in zip(row, widths, right, strict=True)]
        yield "  ".join(cells).rstrip()


def printable(text: str, keep: str = "") -> str:
    """A device's name may hold an escape sequence for the terminal: what is not printable is written as in Python."""
    return "".join(mark if mark.isprintable() or mark in keep else repr(mark)[1:-1] for mark in text)


def flatten(table: pa.Table) -> pa.Table:
    """``table`` with lists, structs, maps and what else has no text of its own in Arrow as JSON."""
    columns = [_to_json(column) if _is_unwritable(column.type) else column for column in table.columns]
    return pa.Table.from_arrays(columns, names=table.column_names)


def _is_unwritable(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_nested, pa.types.is_interval, pa.types.is_duration, pa.types.is_binary))


def _to_json(column: pa.ChunkedArray) -> pa.Array:
    values: list[Any] = column.to_pylist(maps_as_pydicts="lossy")
    texts = [None if value is None else json.dumps(value, default=str, ensure_ascii=False) for value in values]
    return pa.array(texts, pa.string())


if __name__ == "__main__":
    sys.exit(main())
