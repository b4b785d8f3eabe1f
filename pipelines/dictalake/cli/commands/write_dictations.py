"""Write synthetic dictation texts for training speech, held-out speech, or the language model.

    dictalake write-dictations --count 9000 --free-words 0.12 --out train.csv
    dictalake write-dictations --count 9000 --free-words 1 --list-words 1 3 --out words.csv
    dictalake write-dictations --count 600 --held-out --seed 7 --out held_out.csv

The CSV has the columns id, text and specialty. Held-out dictations share no sentence with any other.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from dictalake.cli.options import CommandParser
from dictalake.errors import ConfigError


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} --count N --out FILE [options]"
    parser.add_argument("--count", type=int, required=True, help="how many dictations")
    parser.add_argument("--out", type=Path, required=True, help="CSV to write: id, text, specialty")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", action="store_true", help="only sentences that training never sees")
    parser.add_argument("--free-words", type=float, default=0.0, help="share of lists of unconnected words (default 0)")
    parser.add_argument(
        "--list-words", type=int, nargs=2, default=(3, 9), metavar=("MIN", "MAX"), help="words in such a list (default 3 9)"
    )
    parser.add_argument("--wordlist", type=Path, action="append", default=[], help="file of words for those lists")
    parser.add_argument("--specialty", action="append", help="only these specialties (default all)")


def run(arguments: argparse.Namespace) -> int:
    if not 1 <= arguments.list_words[0] <= arguments.list_words[1]:
        raise ConfigError(
            f"--list-words {arguments.list_words[0]} {arguments.list_words[1]}: 1 or more, the smaller number first"
        )
    from dictalake.training.dictation import Corpus, write_dictations

    corpus = Corpus.load(wordlists=tuple(arguments.wordlist))
    if unknown := set(arguments.specialty or ()) - set(corpus.reports):
        raise ConfigError(f"--specialty {', '.join(sorted(unknown))}: unknown; there are {', '.join(sorted(corpus.reports))}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "specialty"])
        for dictation in write_dictations(
            corpus,
            arguments.seed,
            arguments.count,
            held_out=arguments.held_out,
            free_words=arguments.free_words,
            list_words=tuple(arguments.list_words),
            specialties=arguments.specialty,
        ):
            writer.writerow([dictation.id, dictation.text, dictation.specialty])
    return 0
