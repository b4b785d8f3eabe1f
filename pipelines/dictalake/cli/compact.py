"""Puts the lake's small files together and removes what is out of use, while people read and runs write. Weekly is enough.

dictalake compact --lake.uri gs://lake/speech
"""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from dictalake import logs
from dictalake.cli.options import make_parser, parse, read_config
from dictalake.lake.erase import sweep
from dictalake.lake.maintenance import compact


def main(argv: list[str] | None = None) -> int:
    arguments, overrides = parse(make_parser("compact", __doc__ or ""), argv)
    config = read_config(arguments, overrides)
    table = Table("table", "files before", "files now", "MB now", "largest file, MB", "old files removed")
    compacted = compact(config.lake)
    for done in compacted:
        sizes = (f"{done.megabytes:.1f}", f"{done.largest_mb:.1f}")
        table.add_row(done.table, str(done.files_before), str(done.files_after), *sizes, str(done.removed))
    counts = {"files_before": sum(d.files_before for d in compacted), "files_after": sum(d.files_after for d in compacted)}
    counts["removed"] = sum(d.removed for d in compacted)
    line = "{files_before} files are now {files_after}, {removed} old ones removed".format(**counts)
    logs.log_event("compacted", line, lambda _: Console().print(table), **counts)
    if left := sum(one.log_files_left for one in compacted):
        line = f"{left} files of the Delta log still hold texts or URIs, as a run was at work: run the same command again"
        logs.log_event("log_left", line, logs.shown_on(Console(stderr=True)), logs.WARNING, files=left)
    sweep(config.lake)  # what a run that was at work during an erasure left behind
    return 0


if __name__ == "__main__":
    sys.exit(main())
