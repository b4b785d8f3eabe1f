"""Measures the driver's work for each recording and each block: there is one driver, whatever the number of GPUs.

    python -m jobs.benchmarks driver --out driver.json

Planning: synthetic recordings are found, ordered and written as a manifest, for two numbers of recordings. Blocks: two real
runs of the embedded model over recordings of two seconds, one in each block. Both figures are the difference in the driver's
processor time divided by the difference in number, so constant costs cancel. The time of all threads is added up, so the
serial part is at most this. Other keys go to the run.

Runners: the same for stages that do nothing, with --runners 1, 2 and 4; what a block costs the driver, and what it costs the
runners together. One runner is the driver itself. What the driver does with several is mostly to ask them, four times a second
each, so its slope is noise on a busy machine; what the reports of a block cost it is measured without Ray too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dictalake.cli.options import make_parser, read_config
from dictalake.config.sections import Archive, Config, Lake
from dictalake.errors import ConfigError
from dictalake.lake.manifests import Manifests
from dictalake.lake.table import TranscriptTable
from dictalake.records import Recording
from dictalake.workflow import columns
from dictalake.workflow.cluster import running_cluster
from dictalake.workflow.run import transcribe
from dictalake.workflow.worklist import CLAIMED, WorkList
from jobs.benchmarks.__main__ import write_result
from jobs.benchmarks.load import read_demo_speech
from jobs.benchmarks.memory import write_short
from jobs.benchmarks.runners import measure, measure_reports

_REPORTS = 320  # blocks whose reports are taken in


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("bench driver", __doc__ or "")
    _add_sizes(parser)
    parser.add_argument("--out", type=Path, help="JSON file for the figures; the benchmark simulate reads it (--driver)")
    arguments = parser.parse(argv)
    for name in ("blocks", "recordings"):
        fewer, more = getattr(arguments, name)
        if not 0 < fewer < more:
            raise ConfigError(f"--{name} {fewer} {more}: the first number must be positive and less than the second")
    config = read_config(arguments, default="demo")
    plan_s = [_measure_planning(config, count) for count in arguments.recordings]
    block_s = _measure_blocks(config, arguments.blocks)
    flows = [measure(count, arguments.blocks) for count in arguments.runners]
    result: dict[str, Any] = {
        "bench": "driver",
        "recordings": arguments.recordings,
        "planning_cpu_s": plan_s,
        "plan_s_per_row": _slope(arguments.recordings, plan_s),
        "blocks": arguments.blocks,
        "blocks_cpu_s": block_s,
        "s_per_block": _slope(arguments.blocks, block_s),
        "flows": flows,
        "report_s": measure_reports(_REPORTS) if flows else None,
    }
    table = Table("", "processor time of the driver", title="what the driver does")
    table.add_row("to plan a recording", f"{1e6 * result['plan_s_per_row']:.0f} µs")
    table.add_row("for each block", f"{1e3 * result['s_per_block']:.1f} ms")
    for one in flows:
        runners_ms = f", {1e3 * one['runners_s']:.1f} ms of the runners" if one["runners"] > 1 else ""
        table.add_row(f"for a block, {one['runners']} runners", f"{1e3 * one['driver_s']:.2f} ms{runners_ms}")
    if result["report_s"] is not None:
        table.add_row("to take in and commit what a runner reports of a block", f"{1e3 * result['report_s']:.2f} ms")
    Console().print(table)
    write_result(result, arguments.out)
    return 0


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--blocks", type=int, nargs=2, default=[40, 240], help="blocks of the two runs")
    parser.add_argument("--runners", type=int, nargs="*", default=[1, 2, 4], help="numbers of runners; none: not measured")
    parser.add_argument("--recordings", type=int, nargs=2, default=[20_000, 120_000], help="recordings of the two plans")


def _slope(counts: list[int], seconds: list[float]) -> float:
    return (seconds[1] - seconds[0]) / (counts[1] - counts[0])


def _measure_planning(config: Config, count: int) -> float:
    """Seconds of processor time from the list of the archive to the manifest, without the listing itself."""
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.model_validate({"uri": f"{folder}/lake"})
        table, manifests = TranscriptTable(lake), Manifests(lake)
        (Path(folder) / "work").mkdir()
        started = time.process_time()
        work = WorkList(_make_up(count), table.read_erasures(), config, Path(folder) / "work")
        work.refresh(lambda: table.committed("none"), lambda: manifests.find([], CLAIMED))
        parts = (columns.recordings_to_table(block) for block in work.blocks())
        places = manifests.write("bench", parts, columns.recordings_to_table([]).schema)
        deque(places, maxlen=0)
        return time.process_time() - started


def _make_up(count: int) -> Iterator[Recording]:
    first = datetime(2020, 1, 1, tzinfo=UTC)
    for number in range(count):
        uri = f"gs://archive/dictations/{number // 1000:06}/{number:09}.wav"
        yield Recording(f"{number:032x}", uri, str(number), 1_440_000, first + timedelta(seconds=number))


def _measure_blocks(config: Config, counts: list[int]) -> list[float]:
    """Seconds of the driver's processor time in a run over each of ``counts`` recordings, one a block; Ray runs already."""
    config = config.model_copy(update={"ray": config.ray.model_copy(update={"block_rows": 1})})
    speech, seconds = read_demo_speech(), []
    with running_cluster(config):
        for count in (1, *counts):  # the first one imports and compiles
            with tempfile.TemporaryDirectory() as folder:
                write_short(Path(folder) / "archive", speech, count)
                archive = Archive.model_validate({"uri": f"{folder}/archive"})
                lake = Lake.model_validate({"uri": f"{folder}/lake"})
                started = time.process_time()
                transcribe(config.model_copy(update={"archive": archive, "lake": lake}))
                seconds.append(time.process_time() - started)
    return seconds[1:]


if __name__ == "__main__":
    sys.exit(main())
