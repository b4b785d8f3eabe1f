"""Transcribe recordings again and say whether their rows come out identical, or what differs. The lake does not change.

    dictalake reproduce ./lake 5f0c9a… 81d2e7…
    dictalake reproduce ./lake --sample 20 --json again.json
    dictalake reproduce ./lake 5f0c9a… --acoustic.device cpu

A row is made again from the configuration that its run recorded and the recording at its recorded version, by the stages of a
run in this process. Keys on the command line override that configuration; --config and the environment only give the lake and
archive.storage_options. --archive.uri says where the archive is now, if it moved. Of a recording with several rows, the newest
good one is taken, or with --fingerprint the row of that fingerprint.

Everything that made the row and has changed is named, even if nothing came of it: bytes, object version, weights, language
model, configuration, device, dtype, versions, code. Times within 1 ms count as equal, and confidences within 0.001 (0.01 for a
row made in bfloat16), because the other recordings of a batch may move the last bits. Texts are shown only with --show-text.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from dictalake.cli.options import LAKE_KEYS, CommandParser, add_format, collect_overrides, read_config
from dictalake.config.load import load_config
from dictalake.errors import ConfigError

_ID = re.compile(r"[0-9a-f]{32}")


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} LAKE (RECORDING_ID... | --sample N) [options]"
    parser.exit_codes[3] = "some rows differ, or could not be made again"
    parser.add_argument("words", nargs="*", metavar="LAKE RECORDING_ID", help="the lake (or --lake.uri), and recording ids")
    parser.add_argument("--sample", type=int, metavar="N", help="N recordings of the lake, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0, help="another number draws other recordings; default 0")
    parser.add_argument("--fingerprint", help="take the rows under this fingerprint")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON too")
    parser.add_argument("--show-text", action="store_true", help="show, and write, the texts of rows that differ")
    add_format(parser)
    parser.add_config((*LAKE_KEYS, "archive.uri", "archive.storage_options", "acoustic.device", "acoustic.model"))


def run(arguments: argparse.Namespace) -> int:
    lake, ids = split_words(arguments.words)
    arguments.lake = lake
    config = read_config(arguments)
    if config.lake.uri is None:
        raise ConfigError("lake.uri is missing: say which lake, e.g. dictalake reproduce ./lake --sample 5")
    if bool(ids) == (arguments.sample is not None) or (arguments.sample is not None and arguments.sample < 1):
        raise ConfigError("give recording ids, 32 hex digits each, or --sample N with N from 1 on")
    from dictalake.cli.reproduce import reproduce_rows

    given = load_config(None, collect_overrides(arguments), {}).model_dump(exclude_unset=True)
    return reproduce_rows(arguments, config, given, ids)


def split_words(words: list[str]) -> tuple[str | None, list[str]]:
    """The lake, where the first word is no recording id, and the ids, each once. Raises ConfigError for what is neither."""
    lake, rest = (words[0], words[1:]) if words and not _ID.fullmatch(words[0]) else (None, words)
    for word in rest:
        if not _ID.fullmatch(word):
            raise ConfigError(f"{word!r} is no recording id: those have 32 hex digits, as in the column recording_id")
    return lake, list(dict.fromkeys(rest))
