"""Transcribes what is new in the archive, once: the job that a scheduler starts each night.

    dictalake nightly --config medasr --archive.uri gs://bucket/dictations --lake.uri gs://lake/speech

It lists the whole archive and leaves out what is done, so an object that shows up late, was replaced, or lies under yesterday's
date is found all the same, whatever the clock says. What a live backfill, or last night's run, has claimed is left to it. With
nothing to do it prints nothing. 0 all ok, 3 some recordings failed, 2 bad configuration, 1 the run failed: start it again.
"""

from __future__ import annotations

import sys

from jobs.backfill import add_retry, read_retry, tell_end
from jobs.options import make_parser, parse, read_config
from pipelines.progress import format_duration
from pipelines.transcribe import RunSummary, transcribe


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("nightly", __doc__ or "")
    add_retry(parser)
    arguments, overrides = parse(parser, argv)
    summary = transcribe(read_config(arguments, overrides), job="nightly", retry=read_retry(arguments))
    line = describe(summary)
    tell_end(summary, line or f"run {summary.run_id}: nothing to do", print if line else None)
    return 3 if summary.failed else 0


def describe(summary: RunSummary) -> str:
    """One line about what a night did; empty when there was nothing to do and nothing was left to others."""
    if not (summary.ok or summary.failed or summary.claimed):
        return ""
    parts = [f"{summary.ok} transcribed"]
    if summary.failed:
        by_count = sorted(summary.failures.items(), key=lambda item: -item[1])
        parts.append(f"{summary.failed} failed ({', '.join(f'{reason} {count}' for reason, count in by_count)})")
    if summary.retried:
        parts.append(f"{summary.retried} of them tried again")
    if summary.claimed:
        parts.append(f"{summary.claimed} left to {', '.join(summary.others)}")
    if summary.erased:
        parts.append(f"{summary.erased} erased ones left out")
    took = format_duration(summary.wall_s)
    return (
        f"run {summary.run_id}: {', '.join(parts)}; {summary.audio_s / 3600:.2f} audio hours in {took}, "
        f"{summary.skipped} of {summary.found} were done before"
    )


if __name__ == "__main__":
    sys.exit(main())
