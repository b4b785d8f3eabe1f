"""The story of an extraction, top to bottom:

    transcripts ──► work ──► manifest ──► ask and check ──► findings
    (view)          DuckDB   (lake)      Ray Data          (Delta table)

It leaves out what is done under its fingerprint with the text as it is now, and what another live run has claimed. Workers
write files that nobody sees until the driver, here, commits them. After a kill at any moment the same command resumes.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace

import pyarrow as pa
from rich.console import Console

from dictalake import logs, stops, terminal
from dictalake.config.sections import Config
from dictalake.errors import ConfigError, RunError
from dictalake.extraction.job import ExtractJob, running_job
from dictalake.extraction.open_model import open_model
from dictalake.extraction.provenance import ExtractProvenance, make_extract_provenance
from dictalake.extraction.work import WORK, Counts, WorkList
from dictalake.lake.claims import Heartbeat, LeaseStore, make_lease
from dictalake.lake.delta import open_table
from dictalake.lake.finding_rows import FindingTable
from dictalake.lake.manifests import Manifests
from dictalake.lake.places import TRANSCRIPTS_FOLDER
from dictalake.lake.runs import RunLog, RunRecord, describe_config
from dictalake.lake.schema import TRANSCRIPTS
from dictalake.lake.storage import open_storage
from dictalake.observers.base import LibraryLogTrimmer, Observers, RunEnd, State, observing
from dictalake.observers.progress import ProgressReport
from dictalake.observers.stats import RunStats
from dictalake.workflow.commit_loop import commit_as_they_come

JOB = "extract"
_ROUNDS = 3  # over what is still missing
_PROBED = {
    True: "the server keeps to the JSON schema",
    False: "the server does not keep to the JSON schema: what does not fit is dropped and counted",
}


@dataclass(frozen=True)
class ExtractSummary:
    """What an extraction did. ``failures`` maps "reason (stage)" to transcripts."""

    run_id: str
    fingerprint: str
    counts: Counts
    ok: int
    failed: int
    wall_s: float
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        return 3 if self.failed else 0


def extract(config: Config, console: Console | None = None, *, retry_failed: bool = False) -> ExtractSummary:
    """Extracts from the transcripts of ``config.lake`` what has not been extracted yet. Raises ConfigError, RunError."""
    with terminal.quiet_libraries(JOB), stops.second_ends_at_once(terminal.say_last_words):
        if console is None or console.stderr:
            console = Console(file=terminal.stderr())
        stats = RunStats()
        with (
            logs.console_handler(console),
            observing([ProgressReport(stats, console), LibraryLogTrimmer()]) as observers,
            stops.converted(),
        ):
            observers.step_started("asking the model")
            provenance = _name_run(config)
            return _carry_out(config, provenance, stats, observers, retry_failed=retry_failed)


def _name_run(config: Config) -> ExtractProvenance:
    """Looks at the lake and the model before anything starts. Raises ConfigError, RunError."""
    if config.lake.uri is None:
        raise ConfigError("lake.uri is missing: say which lake, e.g. dictalake extract ./lake")
    open_table(open_storage(config.lake, TRANSCRIPTS_FOLDER), TRANSCRIPTS)
    constraint: dict[str, bool | None] = {"is_constrained": True if config.extract.kind != "openai" else None}
    if config.extract.kind == "openai":
        with closing(open_model(config.extract)) as model:
            constraint = model.probe()
        is_constrained = bool(constraint["is_constrained"])
        level = logs.INFO if is_constrained else logs.WARNING
        logs.log_event("probe", _PROBED[is_constrained], None, level, **constraint)
    return make_extract_provenance(config, constraint)


def _carry_out(
    config: Config, provenance: ExtractProvenance, stats: RunStats, observers: Observers, *, retry_failed: bool
) -> ExtractSummary:
    """The run from its lease to its end."""
    store, lease = LeaseStore(config.lake), make_lease(provenance.run_id, JOB, provenance.fingerprint)
    table, log = FindingTable(config.lake), RunLog(config.lake)
    with store.hold(lease, stats.put_into) as renew, _recorded(config, provenance, log, stats), stops.converted():
        observers.step_started("looking for transcripts")
        peers = store.await_peers(lease, renew, lambda line: logs.log_event("claims", line), renew.check)
        others = [peer.run_id for peer in peers]
        if table.read_erasures():
            table.sweep()  # a run that was killed after a commit may have left what was erased meanwhile
        with closing(_find_work(config, provenance, table, others, retry_failed=retry_failed)) as work:
            counts = work.counts
            log.append(_start_record(config, provenance, counts))
            if counts.pending:
                places = _write_manifest(config, provenance.run_id, work)
                renew(replace(lease, state="running"))
                stats.expect(counts.pending, {})
        if counts.pending:
            observers.step_started("starting Ray" if config.ray.address is None else "joining the Ray cluster")
            with running_job(config) as job:
                _do_work(config, provenance, places, job, table, stats, observers, renew)
    return ExtractSummary(
        provenance.run_id, provenance.fingerprint, counts, stats.ok, stats.failed, stats.wall_s, stats.named_failures
    )


def _do_work(
    config: Config,
    provenance: ExtractProvenance,
    places: pa.Table,
    job: ExtractJob,
    table: FindingTable,
    stats: RunStats,
    observers: Observers,
    renew: Heartbeat,
) -> None:
    """Sends the blocks through the job until each transcript has its row, a few times over if need be."""
    missing = 0
    for _ in range(_ROUNDS):
        observers.step_started("extracting")
        reader = job.run(places, provenance)
        reports = _while_alive(reader, renew)
        commit_as_they_come(reports, table, stats, observers, config.lake.commit_every_s, 0, reader.take_arrived)
        with closing(_find_work(config, provenance, table, left_of=provenance.run_id)) as work:
            missing = work.counts.pending
            if not missing:
                return
            places = _write_manifest(config, provenance.run_id, work, first_part=places["part"][-1].as_py() + 1)
            stats.expect(stats.done + missing, {})
    raise RunError(f"{missing} transcripts got no row; what is committed stays, run the same command again for the others")


def _find_work(
    config: Config,
    provenance: ExtractProvenance,
    table: FindingTable,
    others: Sequence[str] = (),
    *,
    retry_failed: bool = False,
    left_of: str | None = None,
) -> WorkList:
    """The table first: what anyone commits after it is read is found at this run's own commits."""
    table.committed(provenance.fingerprint)
    return WorkList(config.lake, provenance.fingerprint, table.forbidden, others, retry_failed=retry_failed, left_of=left_of)


def _write_manifest(config: Config, run_id: str, work: WorkList, first_part: int = 0) -> pa.Table:
    """Puts the work on the lake, where workers take it and other runs see that it is taken; the places of its blocks."""
    places = list(Manifests(config.lake).write(run_id, work.blocks(config.extract.block_rows), WORK, first_part))
    return pa.Table.from_pylist([place._asdict() for place in places])


def _while_alive(reports: Iterable[pa.Table | None], heartbeat: Heartbeat) -> Iterator[pa.Table | None]:
    """``reports``, until this run has lost its lease or is asked to stop."""
    for report in reports:
        yield report
        heartbeat.check()
        stops.check()


@contextmanager
def _recorded(config: Config, provenance: ExtractProvenance, log: RunLog, stats: RunStats) -> Iterator[None]:
    """The run records say how it ended."""
    try:
        yield
    except BaseException as error:
        with suppress(RunError):
            early = [] if log.has_started else [_start_record(config, provenance, Counts())]
            log.append(*early, _end_record(provenance, stats, RunEnd(error).state))
        raise
    log.append(_end_record(provenance, stats, "finished"))


def _start_record(config: Config, provenance: ExtractProvenance, counts: Counts) -> RunRecord:
    text, config_hash = describe_config(config)
    return RunRecord(
        run_id=provenance.run_id,
        event="started",
        job=JOB,
        fingerprint=provenance.fingerprint,
        config=text,
        config_hash=config_hash,
        pipeline_version=provenance.row["pipeline_version"],
        git_commit=provenance.row["git_commit"],
        versions=dict(provenance.row["versions"]),
        host=platform.node(),
        recordings=counts.found,
        skipped=counts.done,
        claimed=counts.claimed,
        erased=counts.erased,
    )


def _end_record(provenance: ExtractProvenance, stats: RunStats, state: State) -> RunRecord:
    return RunRecord(
        run_id=provenance.run_id,
        event=state,
        job=JOB,
        fingerprint=provenance.fingerprint,
        ok=stats.ok,
        failed=stats.failed,
        wall_s=stats.wall_s,
        storage_retries=stats.retries,
        failures=stats.named_failures,
    )
