"""Read the transcripts of a lake with a language model: findings, drugs, values, follow-ups.

    dictalake extract ./lake --config extract-openai --extract.server http://127.0.0.1:8000/v1
    dictalake extract gs://lake/speech --config extract-transformers --extract.model ./medgemma-1.5-4b-it

It reads the transcripts that count, a person's corrected text first, and skips what is done under the same model and prompt.
Each item must have a quote that stands in the transcript, else it is dropped and counted. `dictalake query` has the views
findings, medications, lab_values and follow_ups, each item with the second at which it was said. Run the same command again
each night, or to resume.
"""

from __future__ import annotations

import argparse

from dictalake.cli.options import LAKE_KEYS, CommandParser, add_format, read_config
from dictalake.errors import ConfigError

SHOWN = ("extract.kind", "extract.model", "extract.revision", "extract.server", "extract.concurrency", "extract.device")


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} LAKE [options]"
    parser.exit_codes[3] = "done; some transcripts failed"
    parser.add_argument("lake", nargs="?", metavar="LAKE", help="the lake: a folder, gs://… or s3://… (or --lake.uri)")
    parser.add_argument("--retry-failed", action="store_true", help="also read again transcripts that failed")
    add_format(parser)
    parser.add_config((*LAKE_KEYS, *SHOWN, "ray.cpus", "logs.format"))


def run(arguments: argparse.Namespace) -> int:
    config = read_config(arguments)
    if config.lake.uri is None:
        raise ConfigError("lake.uri is missing: say which lake, e.g. dictalake extract ./lake")
    from dictalake.cli.extract import extract_lake

    return extract_lake(config, retry_failed=arguments.retry_failed, form=arguments.format)
