"""Merge the lake's small files and remove those out of use. Once a week is enough.

    dictalake compact ./lake

People may read and runs may write meanwhile.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dictalake.cli.options import CommandParser, add_format, add_lake, read_lake

if TYPE_CHECKING:
    from dictalake.lake.maintenance import Compaction

WITHOUT_PANDAS = True


def add_arguments(parser: CommandParser) -> None:
    add_lake(parser)
    add_format(parser)


def run(arguments: argparse.Namespace) -> int:
    lake = read_lake(arguments)
    from rich.console import Console

    from dictalake import logs
    from dictalake.lake.erase import sweep
    from dictalake.lake.maintenance import compact

    compacted = compact(lake)
    counts = {"files_before": sum(d.files_before for d in compacted), "files_after": sum(d.files_after for d in compacted)}
    counts["removed"] = sum(d.removed for d in compacted)
    line = "{files_before} files are now {files_after}, {removed} old ones removed".format(**counts)
    logs.log_event("compacted", line, lambda _: _show(compacted, arguments.format), **counts)
    if left := sum(one.log_files_left for one in compacted):
        line = f"{left} files of the Delta log still hold texts or URIs, because a run was at work: run the command again"
        logs.log_event("log_left", line, logs.shown_on(Console(stderr=True)), logs.WARNING, files=left)
    sweep(lake)  # what a run that was at work during an erasure left behind
    return 0


def _show(compacted: Sequence[Compaction], form: str) -> None:
    from dataclasses import asdict

    from dictalake.cli.tables import Column, print_json, print_table

    if form == "json":
        print_json([asdict(done) for done in compacted])
        return
    names = ("files before", "files now", "MB now", "largest, MB", "removed")
    rows = [
        (d.table, str(d.files_before), str(d.files_after), f"{d.megabytes:.1f}", f"{d.largest_mb:.1f}", str(d.removed))
        for d in compacted
    ]
    print_table(["table", *(Column(name, is_number=True) for name in names)], rows)
