"""Score what a language model extracts from labelled texts: precision and recall by kind, negation and side.

    dictalake evaluate-extraction labels.jsonl --config extract-openai --extract.server http://127.0.0.1:8000/v1

Each line of the file is a JSON object: id, text, and the lists findings, medications, lab_values, follow_ups and impressions,
each item with the quote that says it. An item counts as found if its name is similar and its quotes overlap; in strict_f1 its
negation, side and number must be right too. No lake is read or written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dictalake.cli.commands.extract import SHOWN
from dictalake.cli.options import CommandParser, add_format, read_config


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} LABELS [options]"
    parser.exit_codes[3] = "scored; the model gave no answer to some texts"
    parser.add_argument("labels", type=Path, metavar="LABELS", help="labelled texts, a JSON object a line")
    add_format(parser)
    parser.add_config(SHOWN)


def run(arguments: argparse.Namespace) -> int:
    config = read_config(arguments)
    from dictalake.cli.evaluate_extraction import evaluate_extraction

    return evaluate_extraction(config, arguments.labels, arguments.format)
