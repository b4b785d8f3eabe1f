"""Write transcripts in the formats of other programs. What it writes is text of patients.

    dictalake export ./lake --out march.csv --month 2026-03 --excel
    dictalake export ./lake --out all.jsonl --where "confidence < 0.8"
    dictalake export ./lake --out subtitles --format srt --specialty cardiology

csv has a line for each recording, also for those that failed. jsonl has the words with their times. ctm is one file with a line
for each word. srt, vtt and textgrid (of Praat) give a folder with a file for each recording, named by its id, and the list
recordings.csv. --where is SQL on the columns of the view recordings.

The text is that of the person who corrected it, whom the column corrected_by names, else the machine's; --machine-text gives
the machine's alone. Words with times, and so srt, vtt, textgrid and ctm, are always the machine's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dictalake.cli.options import CommandParser, add_csv_style, add_lake, read_lake, read_separator
from dictalake.errors import ConfigError

WITHOUT_PANDAS = True
_BY_ENDING = {".csv": "csv", ".jsonl": "jsonl", ".ctm": "ctm"}


def add_arguments(parser: CommandParser) -> None:
    add_lake(parser, "--out PATH ")
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help="a file, or a folder for srt, vtt and textgrid")
    parser.add_argument(
        "--format", choices=("csv", "jsonl", "srt", "vtt", "textgrid", "ctm"), help="default: by the ending of --out"
    )
    parser.add_argument("--where", metavar="SQL", help="only recordings for which this holds: \"specialty = 'surgery'\"")
    parser.add_argument("--month", metavar="YYYY-MM", help="only recordings of this month; other files stay closed")
    parser.add_argument("--specialty", metavar="NAME", help="only recordings of this specialty")
    parser.add_argument("--recording", action="append", default=[], metavar="ID", help="only this one; may be repeated")
    parser.add_argument("--machine-text", action="store_true", help="the machine's text, also where a person corrected it")
    add_csv_style(parser)


def run(arguments: argparse.Namespace) -> int:
    lake = read_lake(arguments)
    form = arguments.format or _BY_ENDING.get(arguments.out.suffix.lower())
    if form is None:
        raise ConfigError(f"--out {arguments.out}: say which format with --format csv, jsonl, srt, vtt, textgrid or ctm")
    from dictalake.cli.export import Filter, export
    from dictalake.cli.query import CsvStyle

    wanted = Filter(arguments.where, arguments.month, arguments.specialty, arguments.recording)
    style = CsvStyle(arguments.raw_csv, read_separator(arguments), arguments.excel)
    count = export(lake, form, arguments.out, wanted, style, as_heard=arguments.machine_text)
    if count >= 0:
        print(f"wrote {count} transcripts to {arguments.out}", file=sys.stderr)
    return 0
