"""Transcribe what is new in the archive, once: the job that a scheduler starts each night.

    dictalake nightly ./archive ./lake
    dictalake nightly gs://bucket/dictations gs://lake/speech --config medasr

It lists the whole archive and skips what is done. So it finds an object that arrives late, was replaced, or lies under
yesterday's date. It leaves alone what a live backfill, or last night's run, is working on. It refuses a model or a setting
that is new to the lake, since that transcribes the whole archive again. It prints one line, or nothing when there was nothing
to do.
"""

from __future__ import annotations

import argparse

from dictalake.cli.options import RUN_KEYS, CommandParser, read_config
from dictalake.cli.run_options import add_allow_empty, add_places, add_retry, read_retry


def add_arguments(parser: CommandParser) -> None:
    add_places(parser)
    add_retry(parser)
    add_allow_empty(parser)
    parser.add_argument(
        "--new-fingerprint",
        action="store_true",
        help="go on with a configuration that is new to the lake, which means to transcribe everything again",
    )
    parser.exit_codes[2] = "an option or a key is wrong, or means to transcribe everything again (--new-fingerprint)"
    parser.add_config(RUN_KEYS)


def run(arguments: argparse.Namespace) -> int:
    config, retry = read_config(arguments), read_retry(arguments)
    from dictalake.cli.run_end import log_end
    from dictalake.cli.run_summary import describe
    from dictalake.workflow.fingerprint_change import OnNew
    from dictalake.workflow.run import transcribe

    on_new: OnNew = "tell" if arguments.new_fingerprint else "refuse"
    summary = transcribe(config, job="nightly", retry=retry, on_new=on_new, allow_empty=arguments.allow_empty)
    line = describe(summary)
    log_end(summary, line or f"run {summary.run_id}: nothing to do", print if line else None)
    return summary.exit_code
