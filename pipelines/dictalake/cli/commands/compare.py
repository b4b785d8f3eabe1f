"""Say what a promotion would change: the words of two fingerprints in recordings that both transcribed.

    dictalake compare ./lake 6c049c4aa901 1c6ac1e67650
    dictalake compare ./lake 6c049c4aa901 1c6ac1e67650 --pairs 5
    dictalake compare ./lake 6c049c4aa901 1c6ac1e67650 --out pairs.jsonl

It counts words, medical terms, negations, numbers and sides that differ, and confidence, by specialty. It compares 2,000
recordings at most, or --sample. --pairs and --out show transcripts of patients: on your terminal, or in your file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dictalake.cli.options import LAKE_KEYS, CommandParser, add_format, read_lake

WITHOUT_PANDAS = True


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} LAKE OLD NEW [options]"
    parser.add_argument("lake", metavar="LAKE", help="the lake: a folder, gs://… or s3://…")
    parser.add_argument("old", metavar="OLD", help="fingerprint that counts today")
    parser.add_argument("new", metavar="NEW", help="fingerprint that would be promoted")
    parser.add_argument("--sample", type=int, default=2000, metavar="N", help="recordings to compare; 0: all; default: 2000")
    parser.add_argument("--pairs", type=int, default=0, metavar="N", help="show both transcripts of the N that differ most")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write them, or without --pairs 1,000 of them, as JSON lines")
    add_format(parser)
    parser.add_config(LAKE_KEYS)


def run(arguments: argparse.Namespace) -> int:
    lake = read_lake(arguments)
    from dictalake.cli.compare import compare

    compare(lake, arguments)
    return 0
