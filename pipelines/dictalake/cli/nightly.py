"""Transcribes what is new in the archive, once: the job that a scheduler starts each night.

    dictalake nightly --config medasr --archive.uri gs://bucket/dictations --lake.uri gs://lake/speech

It lists the whole archive and leaves out what is done, so an object that shows up late, was replaced, or lies under yesterday's
date is found all the same, whatever the clock says. What a live backfill, or last night's run, has claimed is left to it. With
nothing to do it prints nothing. 0 all ok, 3 some recordings failed, 2 bad configuration, 1 the run failed: start it again.
"""

from __future__ import annotations

import sys

from dictalake.cli.backfill import add_retry, read_retry, tell_end
from dictalake.cli.options import make_parser, parse, read_config
from dictalake.cli.run_summary import describe
from dictalake.workflow.run import transcribe


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("nightly", __doc__ or "")
    add_retry(parser)
    arguments, overrides = parse(parser, argv)
    summary = transcribe(read_config(arguments, overrides), job="nightly", retry=read_retry(arguments))
    line = describe(summary)
    tell_end(summary, line or f"run {summary.run_id}: nothing to do", print if line else None)
    return 3 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
