"""Ask a lake a question in SQL. Nothing in the lake changes.

    dictalake query ./lake "SELECT recorded_month, count(*) FROM transcripts GROUP BY ALL"
    dictalake query ./lake --file volume_by_month.sql --out volume.parquet
    dictalake query ./lake "FROM recordings" --out recordings.csv --excel
    dictalake query ./lake "FROM recordings JOIN orders USING (uri)" --attach orders.csv

Views: transcripts (one row for each current recording, as promoted), recordings (all recordings in flat columns),
transcript_words, transcript_sections, incomplete (transcripts that lack sound), failures, rechecks, runs, promotions,
superseded, corrections (what people changed), and history (every row). Of what `dictalake extract` found: findings,
medications, lab_values, follow_ups, impressions, and extractions (a row for each transcript). The language is DuckDB's. A
condition on recorded_month keeps the files of other months closed. A table shows the first 1,000 rows; CSV, JSON, Parquet and
Arrow (an IPC file) hold all of them. In a CSV an apostrophe stands before a text that a spreadsheet would run as a formula.
"""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

from dictalake.cli.options import LAKE_KEYS, CommandParser, add_csv_style, read_lake, read_separator
from dictalake.errors import ConfigError

WITHOUT_PANDAS = True
LEAVES_READS = True
_TIMEOUT_S, _SPILL_GB = 300.0, 20.0


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f'{parser.prog} LAKE ("SQL" | --file FILE) [options]'
    parser.add_argument("lake", nargs="?", metavar="LAKE", help="the lake: a folder, gs://… or s3://… (or --lake.uri)")
    parser.add_argument("sql", nargs="?", metavar="SQL", help="one statement that only reads, in quotation marks")
    parser.add_argument("--file", type=Path, metavar="FILE", help="take the SQL from this file")
    parser.add_argument(
        "--format", choices=("table", "csv", "json", "parquet", "arrow"), help="default: by the ending of --out, else table"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write to this file: .csv, .json, .parquet or .arrow")
    parser.add_argument(
        "--timeout",
        type=float,
        default=_TIMEOUT_S,
        metavar="SECONDS",
        help=f"stop a question that DuckDB works on for longer; default {_TIMEOUT_S:g}, 0 for no limit",
    )
    parser.add_argument(
        "--attach",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="a table of your own to join with: .csv, .parquet, .json or .jsonl; named after the file",
    )
    parser.add_argument(
        "--spill-gb",
        type=float,
        default=_SPILL_GB,
        metavar="N",
        help=f"gigabytes of the disk that the question may take; default {_SPILL_GB:g}",
    )
    add_csv_style(parser)
    parser.add_config(LAKE_KEYS)


def run(arguments: argparse.Namespace) -> int:
    if arguments.sql is None and arguments.file is None:  # the one word is the question; the lake is named by lake.uri
        arguments.lake, arguments.sql = None, arguments.lake
    sql, lake = read_question(arguments.sql, arguments.file), read_lake(arguments)
    from dictalake.cli.attach import read_attachments
    from dictalake.cli.query import CsvStyle, Limits, answer, check_question, choose_format

    if not 0 <= arguments.timeout <= threading.TIMEOUT_MAX:
        most = f"{threading.TIMEOUT_MAX:.0f} at most"
        raise ConfigError(f"--timeout {arguments.timeout:g}: must be a number of seconds, {most}, 0 for no limit")
    if not 0 < arguments.spill_gb < 1e6:
        raise ConfigError(f"--spill-gb {arguments.spill_gb:g}: must be a number of gigabytes")
    question = check_question(sql)
    form = choose_format(arguments.format, arguments.out, sys.stdout.isatty())
    limits = Limits(arguments.timeout or None, arguments.spill_gb)
    style = CsvStyle(arguments.raw_csv, read_separator(arguments), arguments.excel)
    answer(lake, question, form, arguments.out, limits, style=style, attached=read_attachments(arguments.attach))
    return 0


def read_question(sql: str | None, file: Path | None) -> str:
    """Raises ConfigError unless exactly one of the two is given and can be read."""
    if (sql is None) == (file is None):
        raise ConfigError('give either the SQL in quotation marks, dictalake query LAKE "SELECT …", or --file FILE')
    if file is None:
        return str(sql)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--file {file} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from None
