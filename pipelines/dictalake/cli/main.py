"""``dictalake <job>``: runs one of the jobs and turns errors into one clear line and an exit code.

0 all ok · 3 finished, some recordings failed · 2 bad configuration · 1 the run itself failed
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from functools import partial
from types import FrameType

JOBS = {
    "backfill": "transcribe what is in an archive and not yet in the lake",
    "nightly": "transcribe what is new, for a scheduler: one line, or none when there is nothing",
    "runs": "who is at work on a lake, and what the last runs did",
    "query": "ask a lake a question in SQL: a table, CSV, Parquet or Arrow",
    "search": "find words in the transcripts of a lake, with where they stand",
    "report": "write a page about a run or a lake: counts, speed, cost, failures and what to do",
    "doctor": "check what a run needs on this machine, and say what to fix",
    "schema": "what the columns of a lake mean: write the documentation, check it, upgrade a lake",
    "reproduce": "make rows of a lake again, and say whether they are identical or what differs",
    "compact": "put a lake's small files together and remove what is out of use",
    "forget": "erase recordings from a lake for good",
    "evaluate": "score configurations on recordings with reference texts",
    "demo": "transcribe the embedded demo archive and show the result",
    "finetune": "train a CTC model on labelled audio",
    "tune": "find decoder settings and calibrate confidence on labelled recordings",
    "build-lm": "build the n-gram language model from text",
    "write-dictations": "write synthetic dictation texts",
    "synthesize": "speak texts with text-to-speech voices",
    "lengthen": "make long dictations out of short utterances",
}
EXIT_OK, EXIT_RUN_FAILED, EXIT_BAD_CONFIG, EXIT_SOME_FAILED = 0, 1, 2, 3


def _stop(number: int, frame: FrameType | None) -> None:
    """A machine that is taken away says so with SIGTERM: what is finished is committed, and the run's claim given back."""
    raise SystemExit(128 + number)


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    # Before anything imports Ray or transformers: no reports home, no chatter.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print("usage: dictalake JOB [options]     dictalake JOB --help for its options\n")
        for name, what in JOBS.items():
            print(f"  {name:17} {what}")
        return EXIT_OK if arguments else EXIT_BAD_CONFIG
    job = arguments[0]
    if job not in JOBS:
        print(f"dictalake: unknown job {job}; jobs are {', '.join(JOBS)}", file=sys.stderr)
        return EXIT_BAD_CONFIG
    signal.signal(signal.SIGTERM, _stop)
    from dictalake import logs
    from dictalake.errors import ConfigError, DictalakeError

    def end(line: str, exit_code: int) -> int:
        show = partial(print, file=sys.stderr)
        logs.log_event("failed", f"dictalake {job}: {line}", show, logs.ERROR, exit_code=exit_code)
        return exit_code

    try:
        return int(importlib.import_module(f"dictalake.cli.{job.replace('-', '_')}").main(arguments[1:]))
    except ConfigError as error:
        return end(str(error), EXIT_BAD_CONFIG)
    except DictalakeError as error:
        return end(str(error), EXIT_RUN_FAILED)
    except KeyboardInterrupt:
        return end("stopped; what was committed stays, the same command goes on", 130)


if __name__ == "__main__":
    sys.exit(main())
