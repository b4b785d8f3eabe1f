"""The numbers of a run for Prometheus: over a port while it runs, and to a file or a Pushgateway when it ends.

Each request reads them from the run's RunStats; nothing is counted twice. Every metric has the label ``command`` (backfill,
nightly). Further labels are few and have fixed values: status, stage, reason, GPU number. Only ``dictalake_run_info`` has
``run_id``. No metric holds a recording, a URI or text.

Ray exports the inside of the cluster: queues between stages, object store, GPUs of all nodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pynvml
from prometheus_client import CollectorRegistry, ProcessCollector, push_to_gateway, start_http_server, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from dictalake import logs
from dictalake.config.observability import Metrics
from dictalake.errors import ConfigError
from dictalake.observers.base import Observer, RunEnd, RunStart
from dictalake.observers.stats import RunStats
from dictalake.transcript.provenance import Provenance

SUCCESS = "dictalake_last_success_timestamp_seconds"
_PUSH_TIMEOUT_S = 10.0


class RunCollector(Collector):
    """The metrics of one run, made from its ``stats`` at each request. ``exit_status`` is None while it runs, and
    ``provenance`` is None until the run has a name."""

    def __init__(self, command: str, stats: RunStats) -> None:
        self._command, self._stats = command, stats
        self.provenance: Provenance | None = None
        self._started_at = time.time()
        self._ended_at: float | None = None
        self.exit_status: int | None = None

    def end(self, exit_status: int) -> None:
        """Records the end of the run with the command's exit code."""
        self.exit_status, self._ended_at = exit_status, time.time()

    def collect(self) -> Iterator[Metric]:
        yield from self._run()
        yield from self._recordings()
        yield from self._times()

    def _run(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "dictalake_run_info", "Which run this is; always 1", labels=("command", "run_id", "fingerprint", "version")
        )
        if (p := self.provenance) is not None:
            info.add_metric((self._command, p.run_id, p.fingerprint, p.pipeline_version), 1)
        yield info
        yield self._gauge("dictalake_run_active", "1 while the run works, 0 once it is over", int(self.exit_status is None))
        yield self._gauge("dictalake_run_start_time_seconds", "When the run started, since 1970", self._started_at)
        yield self._gauge("dictalake_run_end_time_seconds", "When it ended; absent before", self._ended_at)
        yield self._gauge(
            "dictalake_run_exit_status",
            "0 all ok, 3 some recordings failed, 2 bad configuration, 1 it failed, 130 or 143 it was stopped",
            self.exit_status,
        )

    def _recordings(self) -> Iterator[Metric]:
        stats, command = self._stats, self._command
        done = CounterMetricFamily("dictalake_recordings", "Recordings finished", labels=("command", "status"))
        done.add_metric((command, "ok"), stats.ok)
        done.add_metric((command, "failed"), stats.failed)
        yield done
        failed = CounterMetricFamily(
            "dictalake_recordings_failed",
            "Recordings that failed, by the stage and the reason",
            labels=("command", "stage", "reason"),
        )
        for kind, count in dict(stats.failures).items():
            failed.add_metric((command, kind.stage, kind.reason), count)
        yield failed
        yield self._counter("dictalake_audio_seconds", "Seconds of audio in finished recordings", stats.audio_s)
        yield self._counter("dictalake_storage_retries", "Requests to archive and lake that were made again", stats.retries)
        yield self._counter(
            "dictalake_recordings_incomplete", "Transcribed recordings with sound that could not be decoded", len(stats.lost)
        )
        lost_s = sum(list(stats.lost.values()))
        yield self._counter("dictalake_lost_seconds", "Seconds of sound in them that could not be decoded", lost_s)
        yield self._gauge("dictalake_recordings_wanted", "Recordings that this run has to do", stats.wanted)
        yield self._gauge(
            "dictalake_recordings_pending", "Of them not yet finished: the queue", max(0, stats.wanted - stats.done)
        )
        uncommitted = max(0, stats.done - stats.committed)
        yield self._gauge("dictalake_recordings_uncommitted", "Finished and not yet in the lake: in hand", uncommitted)
        yield self._gauge("dictalake_recordings_claimed", "Recordings left to other live runs", stats.claimed)
        yield self._gauge(
            "dictalake_storage_withheld",
            "Recordings in a row, up to now, that the archive's storage did not give",
            stats.consecutive_storage_failures,
        )

    def _times(self) -> Iterator[Metric]:
        stats, command = self._stats, self._command
        stages = CounterMetricFamily(
            "dictalake_stage_seconds", "Seconds that a stage worked, over all workers", labels=("command", "stage")
        )
        for stage, seconds in dict(stats.stage_s).items():
            stages.add_metric((command, stage), seconds)
        yield stages
        commits = SummaryMetricFamily(
            "dictalake_commit_seconds", "Commits to the lake and how long they took", labels=("command",)
        )
        commits.add_metric((command,), stats.commits, stats.commit_s)
        yield commits
        yield self._gauge(
            "dictalake_last_commit_timestamp_seconds", "The last commit, since 1970; absent before", stats.last_commit_at
        )

    def _gauge(self, name: str, what: str, value: float | None) -> GaugeMetricFamily:
        """Has no sample for an unknown value: absent, not 0."""
        family = GaugeMetricFamily(name, what, labels=("command",))
        if value is not None:
            family.add_metric((self._command,), value)
        return family

    def _counter(self, name: str, what: str, value: float) -> CounterMetricFamily:
        family = CounterMetricFamily(name, what, labels=("command",))
        family.add_metric((self._command,), value)
        return family


class GpuCollector(Collector):
    """How busy the GPUs of the driver's machine are, read from NVIDIA's driver library; empty without it.

    It is for a run that starts its own Ray without a dashboard; a cluster has ``ray_node_gpus_utilization``.
    """

    def __init__(self) -> None:
        self._handles = []
        try:
            pynvml.nvmlInit()
            self._handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        except pynvml.NVMLError:
            pass  # no NVIDIA GPU, or no driver for it

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "dictalake_gpu_busy_ratio", "Share of the last moments in which the GPU worked", labels=("gpu",)
        )
        for index, handle in enumerate(self._handles):
            try:
                family.add_metric((str(index),), pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
            except pynvml.NVMLError:
                continue  # the GPU is split by MIG, which has no such number, or lost
        yield family


class SuccessCollector(Collector):
    """When a run of ``command`` last finished; failed recordings do not count against it. ``at`` is None before the first."""

    def __init__(self, command: str, at: float | None) -> None:
        self._command, self._at = command, at

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(SUCCESS, "When such a run last finished, since 1970", labels=("command",))
        if self._at is not None:
            family.add_metric((self._command,), self._at)
        yield family


class BesideOthers(Collector):
    """The metrics of ``own`` for ``command``, and those of ``before`` for other commands."""

    def __init__(self, command: str, own: Sequence[Collector], before: Iterable[Metric]) -> None:
        self._own = own
        self._others: dict[str, Metric] = {}
        for family in before:
            family.samples = [sample for sample in family.samples if sample.labels.get("command") not in (None, command)]
            if family.samples:
                self._others[family.name] = family

    def collect(self) -> Iterator[Metric]:
        others = dict(self._others)
        for collector in self._own:
            for family in collector.collect():
                if (other := others.pop(family.name, None)) is not None:
                    family.samples += other.samples
                yield family
        yield from others.values()


def serve_metrics(settings: Metrics, command: str, stats: RunStats) -> MetricsPublisher:
    """Serves the numbers of ``stats`` on ``metrics.port`` from now on, before the run has a name and before anything can fail.

    If the port is in use it logs a warning.
    """
    publisher = MetricsPublisher(settings, command, stats)
    if settings.port:
        publisher.serve(settings.port, settings.address)
    return publisher


class MetricsPublisher(Observer):
    """Serves the metrics until the run is over, then writes its end to the file and the Pushgateway."""

    name = "metrics"

    def __init__(self, settings: Metrics, command: str, stats: RunStats) -> None:
        self._settings, self._command, self._stats = settings, command, stats
        self._run = RunCollector(command, stats)
        self._server = ExitStack()

    def serve(self, port: int, address: str) -> None:
        registry = _registry(self._run, GpuCollector())
        ProcessCollector(registry=registry)
        try:
            server, thread = start_http_server(port, addr=address, registry=registry)
        except OSError as error:
            _warn(f"metrics.port = {port}", error)
            return
        self._server.callback(thread.join)
        self._server.callback(server.server_close)
        self._server.callback(server.shutdown)

    def run_started(self, start: RunStart) -> None:
        self._run.provenance = start.provenance

    def run_ended(self, end: RunEnd) -> None:
        run, settings, command = self._run, self._settings, self._command
        run.end(exit_status(end.error) if end.error is not None else 3 if self._stats.failed else 0)
        with self._server:
            for key, publish, target in (("textfile", _write, settings.textfile), ("pushgateway", _push, settings.pushgateway)):
                if target is not None:
                    _try(partial(publish, target, run, command), f"metrics.{key} = {target}")


def exit_status(error: BaseException) -> int:
    """The exit code of a command that ends with ``error``."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, ConfigError) else 1


def _registry(*collectors: Collector) -> CollectorRegistry:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return registry


def _write(path: str, run: RunCollector, command: str) -> None:
    """Replaces the file atomically. It keeps the time of the last success after a failed run, and the metrics of other
    commands."""
    before = _read_families(Path(path))
    success = [s.value for family in before for s in family.samples if s.name == SUCCESS and s.labels.get("command") == command]
    at = time.time() if has_finished(run) else next(iter(success), None)
    write_to_textfile(path, _registry(BesideOthers(command, (run, SuccessCollector(command, at)), before)))


def _push(url: str, run: RunCollector, command: str) -> None:
    """Replaces the run before by this one. The time of the last success is a separate group, which a failed run keeps."""
    group = {"command": command}
    push_to_gateway(url, job="dictalake", registry=_registry(run), grouping_key=group, timeout=_PUSH_TIMEOUT_S)
    if has_finished(run):
        success = _registry(SuccessCollector(command, time.time()))
        push_to_gateway(url, job="dictalake_success", registry=success, grouping_key=group, timeout=_PUSH_TIMEOUT_S)


def has_finished(run: RunCollector) -> bool:
    """Whether the run reached its end, with or without failed recordings."""
    return run.exit_status in (0, 3)


def _read_families(path: Path) -> list[Metric]:
    try:
        return list(text_string_to_metric_families(path.read_text(encoding="utf-8"))) if path.is_file() else []
    except (ValueError, LookupError):  # not metrics, so the parser stumbles: nothing to keep
        return []


def _try(publish: Callable[[], None], where: str) -> None:
    try:
        publish()
    except Exception as error:  # no error may fail the run, or the other outputs
        _warn(where, error)


def _warn(where: str, error: BaseException) -> None:
    line = f"{where}: {type(error).__name__}; the run continues, its metrics were not sent"
    logs.log_event("metrics", line, level=logs.WARNING, error=type(error).__name__)
