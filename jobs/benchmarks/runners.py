"""What the flow itself costs, whatever the stages do: the driver's and the runners' processor time for one block.

The benchmark ``driver`` calls it. The stages here do next to nothing: blocks of _ROWS recordings without sound go through the
four operators of a run, real files are written and committed, and progress counts them. Constant costs cancel, since the
figures are differences between two numbers of blocks.
"""

from __future__ import annotations

import pickle
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pyarrow as pa

from dictalake.config.sections import Config, Lake
from dictalake.lake.manifests import Manifests
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.observers.base import Observer
from dictalake.observers.stats import RunStats
from dictalake.records import Recording
from dictalake.workflow import cluster, columns
from dictalake.workflow.commit_loop import commit_as_they_come
from dictalake.workflow.crash_ledger import ClusterCrashLedger
from dictalake.workflow.flow import ActorStage, Flow, connect_places, read_reports
from dictalake.workflow.plan import Resources, make_plan
from dictalake.workflow.report_reader import ReportReader
from dictalake.workflow.runner import SHARE, Answer
from dictalake.workflow.runners import RunnerPool, take_in
from dictalake.workflow.shares import ShareBook
from dictalake.workflow.stages.assemble import REPORT, report_files

_ROWS, _AUDIO_S = 24, 74.0  # of a block as the simulation cuts it, and of a recording
_PATIENCE_S, _TOGETHER = 10.0, 8
_SMALL = {"load_memory_mb": 100.0, "emit_memory_mb": 100.0, "decode_memory_mb": 100.0, "finish_memory_mb": 100.0}


class Pass:
    """A stage that passes everything on."""

    def __init__(self, *arguments: Any) -> None: ...

    def __call__(self, table: pa.Table) -> pa.Table:
        return table


class PassOn(Pass):
    """The same, in as many tables as it likes: here one."""

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        yield table


class WriteNothings:
    """Rows without a text, in a real file, with a real report."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = [make_nothing(recording_id) for recording_id in table["recording_id"].to_pylist()]
        files = write_staged(make_transcripts(rows), self._lake)
        by_id = {row["recording_id"]: row for row in rows}
        return pa.Table.from_pylist(report_files(files, by_id, 5.0, 0), schema=REPORT)


def make_nothing(recording_id: str) -> dict[str, Any]:
    """A row of the lake with only what a report needs."""
    timings = dict.fromkeys(("load_ms", "emit_ms", "decode_ms"), 0.0)
    row = {"recording_id": recording_id, "status": "ok", "run_id": "bench", "attempt": 0, "error": None, "timings": timings}
    return {**row, "quality": {"duration_s": _AUDIO_S}, "fingerprint": "bench", "recorded_month": "2020-01"}


def measure(runners: int, blocks: list[int]) -> dict[str, float]:
    """Seconds of processor time for one block, of the driver and of all runners together, in a Ray that runs already."""
    config = Config.model_validate({"ray": {"runners": runners, **_SMALL}, "acoustic": {"device": "cpu"}})
    with cluster.running_cluster(config) as resources:
        fewer, more = (_measure_once(config, resources, count) for count in blocks)
    between = blocks[1] - blocks[0]
    return {"runners": runners, **{name: (more[name] - fewer[name]) / between for name in more}}


def measure_reports(blocks: int) -> float:
    """Seconds of the driver's processor time to take in the reports of one block from a runner and to commit its file.

    Without Ray: what arrives is a pickled answer, as Ray hands it over, of _TOGETHER blocks at once.
    """
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.model_validate({"uri": f"{folder}/lake"})
        write, answers = WriteNothings(lake), list[bytes]()
        for first in range(0, blocks, _TOGETHER):
            reports = []
            for block in range(first, first + _TOGETHER):
                report = write(columns.recordings_to_table([_make_up(block, row) for row in range(_ROWS)]))
                reports.append(report.append_column(SHARE, pa.array([block] * report.num_rows, pa.int64())))
            answers.append(pickle.dumps(Answer(pa.concat_tables(reports), tuple(range(first, first + _TOGETHER)))))
        places = pa.table({"part": range(len(answers) * _TOGETHER), "group": [0] * len(answers) * _TOGETHER})
        book, table, stats = ShareBook(places), TranscriptTable(lake), RunStats()
        table.committed("bench")
        book.take("one", len(book))

        def read() -> Iterator[pa.Table]:
            for answer in answers:
                yield take_in(book, "one", pickle.loads(answer))

        started = time.process_time()
        commit_as_they_come(read(), table, stats, Observer(), 2.0)
        assert book.is_over
        assert stats.committed == len(book) * _ROWS
        return (time.process_time() - started) / len(book)


def _measure_once(config: Config, resources: Resources, count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as ending:
        lake = Lake.model_validate({"uri": f"{folder}/lake"})
        found = ([_make_up(block, row) for row in range(_ROWS)] for block in range(count))
        parts = (columns.recordings_to_table(block) for block in found)
        places = Manifests(lake).write("bench", parts, pa.schema(columns.RECORDING_COLUMNS))
        table = pa.Table.from_pylist([place._asdict() for place in places])
        flow = Flow(lake, "bench", PassOn(), ActorStage(Pass, ()), ActorStage(Pass, ()), WriteNothings(lake))  # type: ignore[arg-type]
        plan, ledger = make_plan(config, resources), ClusterCrashLedger()
        pool: RunnerPool | None = None
        if plan.runners > 1:
            pool = RunnerPool(flow, config, plan, ledger, ShareBook(table))
            reader = ReportReader(pool.read_reports(), 1.0, pool.interrupt)
        else:
            data = connect_places(flow, table, plan, ledger)
            reader = ReportReader(read_reports(data), 1.0, cluster.make_interrupt(data))
        ending.callback(reader.stop, _PATIENCE_S)
        transcripts = TranscriptTable(lake)
        transcripts.committed("bench")
        stats, started = RunStats(), time.process_time()
        commit_as_they_come(reader, transcripts, stats, Observer(), 2.0)
        assert stats.done == count * _ROWS, f"{stats.done} recordings of {count * _ROWS} came back"
        return {"driver_s": time.process_time() - started, "runners_s": sum(pool.cpu_s.values()) if pool else 0.0}


def _make_up(block: int, row: int) -> Recording:
    return Recording(f"{block * _ROWS + row:032x}", f"gs://archive/{block:06}/{row:03}.wav", "1", 1_440_000)
