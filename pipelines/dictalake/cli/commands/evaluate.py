"""Score configurations side by side on recordings with reference texts.

    dictalake evaluate refs.csv --by voice --out evaluation/
    dictalake evaluate refs.csv --systems greedy,lm,hotwords,whisper --decoding.hotwords drugs.txt
    dictalake evaluate refs.csv --system medasr=medasr.yaml --system large-v3=whisper.yaml
    dictalake evaluate refs.csv --lake.uri gs://lake/speech --run 3f09c1d2ab44=tonight
    dictalake evaluate refs.csv --systems lm --hypotheses dragon=dragon.csv --hypotheses gemini=gemini.jsonl

The manifest has the columns `uri` and `reference`; you may give any other column to --by. The systems greedy, greedy-lm (a
search with the language model that keeps one beam), lm and hotwords run the whole pipeline, into lake.uri if you give one
(run the same command again to resume), else into a lake that is thrown away. So does each --system, a YAML file whose keys
override the configuration. --run scores rows that a lake already holds under a fingerprint; it transcribes nothing.
--hypotheses scores anyone's texts: a CSV or JSONL file with uri and text, STM or CTM; a recording that the file lacks counts
as failed. whisper sends the same waveforms to faster-whisper; compare it under the normaliser whisper, which treats words and
digits alike. A failed recording counts with all its words deleted. Each system is compared with the first.

--out gets scores.json, utterances.parquet, and report.html with the worst transcripts to read and to listen to.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from dictalake.cli.options import CommandParser, add_format, read_config
from dictalake.errors import ConfigError

DEFAULT_NORMALISERS = ("medasr", "multimed", "whisper")
_SHOWN = ("archive.manifest", "archive.uri", "lake.uri", "acoustic.model", "acoustic.device", "decoding.lm")


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} MANIFEST [options]"
    parser.exit_codes[3] = "scored; some recordings failed"
    parser.add_argument("manifest", nargs="?", metavar="MANIFEST", help="labelled recordings (or --archive.manifest)")
    parser.add_argument("--systems", type=split_names, metavar="NAME,NAME", help="greedy, greedy-lm, lm, hotwords, whisper")
    parser.add_argument(
        "--system",
        type=_pair("NAME=FILE"),
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="another system: a YAML file whose keys override the configuration",
    )
    parser.add_argument(
        "--run",
        type=_run_name,
        action="append",
        default=[],
        metavar="FINGERPRINT[=NAME]",
        help="another system: rows that lake.uri already holds",
    )
    parser.add_argument(
        "--hypotheses",
        type=_pair("NAME=FILE"),
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="another system: the texts of a CSV, JSONL, STM or CTM file, by URI",
    )
    parser.add_argument("--by", metavar="COLUMN", help="a column of the manifest: a score for each of its values")
    parser.add_argument("--cluster", metavar="COLUMN", help="a column, as speaker: recordings of one value are drawn together")
    parser.add_argument(
        "--normaliser",
        type=split_names,
        default=list(DEFAULT_NORMALISERS),
        metavar="NAME,NAME",
        help=f"default {','.join(DEFAULT_NORMALISERS)}; the page uses the first",
    )
    parser.add_argument(
        "--terms", type=Path, metavar="FILE", help="your own medical terms, one a line; tab and category may follow"
    )
    parser.add_argument("--whisper-model", type=Path, metavar="FOLDER", help="another Whisper model in CTranslate2 form")
    parser.add_argument("--show-worst", type=int, default=0, metavar="N", help="print the N worst transcripts of each system")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for scores.json, utterances.parquet and report.html")
    parser.add_argument("--worst", type=int, default=20, metavar="N", help="transcripts on the page; default 20")
    parser.add_argument("--no-audio", action="store_true", help="leave the sound out of the page")
    add_format(parser)
    parser.add_config(_SHOWN)


def run(arguments: argparse.Namespace) -> int:
    config = read_config(arguments)
    from dictalake.cli.evaluate import evaluate
    from dictalake.evaluation.normalise import NORMALISERS
    from dictalake.evaluation.systems import SYSTEMS

    check_names("--systems", arguments.systems or (), SYSTEMS)
    check_names("--normaliser", arguments.normaliser, tuple(NORMALISERS))
    return evaluate(config, arguments)


def check_names(option: str, names: Sequence[str], allowed: Sequence[str]) -> None:
    """Raises ConfigError for the first name that is not allowed."""
    for name in names:
        if name not in allowed:
            raise ConfigError(f"{option}: {name!r} is none of {', '.join(allowed)}")


def split_names(given: str) -> list[str]:
    """Names with commas between them, each once."""
    return list(dict.fromkeys(name.strip() for name in given.split(",")))


def _pair(form: str) -> Callable[[str], tuple[str, str]]:
    def read(given: str) -> tuple[str, str]:
        name, equals, value = given.partition("=")
        if not (name and equals and value):
            raise argparse.ArgumentTypeError(f"{given!r} is not of the form {form}")
        return name, value

    return read


def _run_name(given: str) -> tuple[str, str]:
    fingerprint, _, name = given.partition("=")
    return fingerprint, name or fingerprint
