"""The story of a run, top to bottom:

    archive ──► manifest ──► load ──► emit ──► decode ──► finish ──► lake
    (objects)                CPU      GPU      CPU        CPU        (Delta table)

An engine that writes text itself (Whisper, Qwen3-ASR) takes the place of emit and decode: load ──► recognize ──► finish.

A run leaves out what is done under its fingerprint and what another live run has claimed. It writes the rest to the lake as its
manifest and sends it through Ray Data in blocks. The last stage writes Parquet files that nobody sees until the driver, here,
commits them. After a kill at any moment, the same command resumes at the last commit.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pyarrow as pa
from rich.console import Console

from dictalake import logs, stops, terminal
from dictalake.acoustic.checkpoint import find_checkpoint, freeze_config
from dictalake.archive.findings import Findings
from dictalake.archive.manifest import scan_recordings
from dictalake.archive.places import pin_places
from dictalake.config.sections import Archive, Config
from dictalake.decoding.native.machine_code import made_ahead, needs_machine_code
from dictalake.errors import ArchiveEmpty, ConfigError, Erased, RunError, name_place
from dictalake.lake.claims import Heartbeat, LeaseStore, make_lease
from dictalake.lake.erasers import blank_manifests_by_rows
from dictalake.lake.places import TRANSCRIPTS_FOLDER
from dictalake.lake.runs import RunLog
from dictalake.lake.storage import open_storage
from dictalake.lake.table import TranscriptTable
from dictalake.observers.base import LibraryLogTrimmer, Observers, RunEnd, RunStart, observing
from dictalake.observers.openlineage import LineageEmitter
from dictalake.observers.progress import ProgressReport, StallMonitor
from dictalake.observers.prometheus import serve_metrics
from dictalake.observers.stats import RunStats
from dictalake.reporting.subprocess_writer import ReportWriter
from dictalake.sandbox.levels import describe_briefly, probe
from dictalake.transcript.provenance import Provenance
from dictalake.workflow import cluster
from dictalake.workflow.archive_checks import begin_findings, check_listing
from dictalake.workflow.commit_loop import commit_as_they_come
from dictalake.workflow.crash_ledger import ClusterCrashLedger, StageCounter, describe_wait
from dictalake.workflow.fingerprint_change import OnNew, take_name, tell_of_new, tell_of_work
from dictalake.workflow.flow import ActorStage, Flow, connect_places, read_reports
from dictalake.workflow.heavy_memory import reserve_memory
from dictalake.workflow.identity import OutputSpec, find_decoder_files, identify, open_output_spec
from dictalake.workflow.listing_reader import ListingReader
from dictalake.workflow.node_watch import NodeWatch
from dictalake.workflow.plan import ResourcePlan, make_plan, plan_heavy
from dictalake.workflow.planning import Planning, choose_share, may_begin_early
from dictalake.workflow.report_reader import ReportReader
from dictalake.workflow.runners import RunnerPool
from dictalake.workflow.shares import ShareBook
from dictalake.workflow.stages.assemble import Assemble
from dictalake.workflow.stages.decode import Decode
from dictalake.workflow.stages.emit import Emit
from dictalake.workflow.stages.load import Load
from dictalake.workflow.stages.recognize import Recognize
from dictalake.workflow.standing import record_request, settle
from dictalake.workflow.summary import RunSummary as RunSummary
from dictalake.workflow.summary import end_record, name_model, start_record, summarise, warn_of_model
from dictalake.workflow.worklist import Retry, WorkList

_TICK_S = 1.0
_PATIENCE_S = 10.0  # with the thread that reads from Ray, once the run is over
_ROUNDS = 3  # over what is still missing
_HOW = {"failed": "failed", "stopped": "was stopped", "finished": "finished"}
Item = TypeVar("Item")


@dataclass(frozen=True)
class _Run:
    """What stays the same from the first block to the last. ``reading`` is None where an engine gives text itself;
    ``listing`` names the recordings.
    """

    config: Config
    job: str
    provenance: Provenance
    reading: OutputSpec | None
    listing: Archive
    table: TranscriptTable
    log: RunLog
    stats: RunStats
    observers: Observers
    findings: Findings
    is_new: bool = False  # whether the lake did not know the fingerprint


def transcribe(
    config: Config,
    console: Console | None = None,
    job: str = "backfill",
    retry: Retry | None = None,
    listing: Archive | None = None,
    *,
    promote: bool = False,
    on_new: OnNew = "tell",
    allow_empty: bool = False,
) -> RunSummary:
    """Transcribes what is in the archive and not yet in the lake, and with ``retry`` what failed or lost sound before.

    ``listing`` is read for ``config.archive`` where that only says in the run's records where the recordings were. With
    ``promote`` the run's fingerprint becomes production once all of the archive has its rows. ``on_new`` says what becomes
    of a fingerprint that is new to the lake: before anything is listed, it is told, refused or passed over. With
    ``allow_empty`` an archive may list nothing although the lake holds recordings from there.

    Raises ConfigError, RunError; the message of a RunError names the file that holds what libraries wrote, if they did.
    """
    with terminal.quiet_libraries(job) as library_log, stops.second_ends_at_once(terminal.say_last_words):
        if console is None or console.stderr:  # the terminal, which is no longer behind sys.stderr
            console = Console(file=terminal.stderr())
        # Piped, the nightly job prints one line at most: its other lines go to logs.file, and beside what libraries wrote.
        # Where there is no such place, the warnings are shown: they would be lost.
        is_quiet = job == "nightly" and not console.is_terminal and library_log is not None
        stats = RunStats()
        with logs.console_handler(None if is_quiet else console) as handler:
            observers = [
                ProgressReport(stats, console),
                LibraryLogTrimmer(),
                LineageEmitter(stats),
                ReportWriter(stats),
                serve_metrics(config.metrics, job, stats),
            ]
            try:
                with observing(observers) as everybody, stops.converted():
                    everybody.step_started("reading the model's files")
                    run = _open_run(config, listing or config.archive, job, stats, everybody, on_new)
                    summary = _carry_out(run, retry, promote=promote, allow_empty=allow_empty)
            except BaseException as error:
                _name_library_log(error, library_log)
                raise
            if handler.hidden_warnings and library_log is not None:
                summary = replace(summary, hidden_warnings=handler.hidden_warnings, log_file=str(library_log.path))
            return summary


def _open_run(
    config: Config, listing: Archive, job: str, stats: RunStats, observers: Observers, on_new: OnNew = "tell"
) -> _Run:
    """Looks at model, decoder and lake, and names the run. Raises ConfigError, RunError."""
    if config.lake.uri is None:
        raise ConfigError("lake.uri is missing: say where the transcripts go, e.g. --lake.uri ./lake")
    # Both refuse what is wrong before anything starts.
    open_storage(config.lake, TRANSCRIPTS_FOLDER)
    findings = begin_findings(config, listing)
    Load(config)
    checkpoint = find_checkpoint(config.acoustic)
    # Workers that start later, or elsewhere, take the weights that are hashed here, whatever the hub holds by then.
    config = config.model_copy(
        update={"acoustic": config.acoustic.model_copy(update={"revision": checkpoint.identity.revision})}
    )
    # Looked up and hashed once, and opened later: a file that has changed since is refused here, or in a worker.
    files = find_decoder_files(config)
    provenance = take_name(config, identify(config, checkpoint, files))
    is_new = tell_of_new(config, provenance, on_new)
    config = freeze_config(config, checkpoint, files)
    reading = open_output_spec(config, checkpoint)
    logs.log_run_start(provenance.run_id, provenance.fingerprint, name_model(config), describe_briefly(probe()))
    if (library_log := terminal.library_log()) is not None:
        library_log.name_run(provenance.run_id, json=logs.is_json())
    warn_of_model(config, job)
    table, log = TranscriptTable(config.lake), RunLog(config.lake)
    return _Run(config, job, provenance, reading, listing, table, log, stats, observers, findings, is_new=is_new)


def _carry_out(run: _Run, retry: Retry | None, *, promote: bool, allow_empty: bool) -> RunSummary:
    """The run from its claim to its end. Observers, run records and the claim tell how it ends."""
    config, provenance, stats, findings = run.config, run.provenance, run.stats, run.findings
    stats.started = time.monotonic()  # a run's time begins when it has a name
    board, claim = LeaseStore(config.lake), make_lease(provenance.run_id, run.job, provenance.fingerprint)
    run.observers.run_started(RunStart(config, provenance, run.job))

    def tell_of_all(planning: Planning) -> None:
        tell_of_work(config, planning.counts.pending, planning.size_bytes)

    with (
        board.hold(claim, stats.put_into) as renew,
        _recorded(run),
        stops.converted(),
        TemporaryDirectory(prefix="dictalake-") as folder,
        ExitStack() as reading,
    ):
        record_request(config, provenance)
        run.observers.step_started("listing the archive")
        others = board.await_peers(claim, renew, lambda line: logs.log_event("claims", line), renew.check)
        listing = reading.enter_context(ListingReader(lambda: scan_recordings(run.listing, findings)))
        planning = Planning(
            config,
            provenance.run_id,
            provenance.fingerprint,
            run.table,
            stats,
            findings,
            listing,
            WorkList((), run.table.read_erasures(), config, Path(folder)),
            board,
            claim,
            renew,
            others,
            retry,
            may_begin_early(run.listing, run.table, config),
            lambda: check_listing(config, run.listing, findings, allow_empty=allow_empty),
            tell_of_all if run.is_new else lambda _: None,
        )
        listing.start()
        places = planning.plan_first()
        if planning.counts.pending == 0:
            run.log.append(start_record(config, provenance, run.job, planning.counts))
        else:
            renew(replace(claim, state="running"))
            _do_work(run, planning, places, renew)
        counts = planning.counts
        standing = settle(config, provenance, promote=promote, is_complete=counts.claimed == 0)
    return replace(summarise(config, provenance, counts, tuple(planning.others), stats, findings), standing=standing)


def _while_alive(items: Iterable[Item], heartbeat: Heartbeat) -> Iterator[Item]:
    """``items``, until this run has lost its lease or is asked to stop; what was given by then has been taken in."""
    for item in items:
        yield item
        heartbeat.check()
        stops.check()


@contextmanager
def _recorded(run: _Run) -> Iterator[None]:
    """The run records say how it ended, also where it failed before it knew its work."""
    try:
        yield
    except BaseException as error:
        early = [] if run.log.has_started else [start_record(run.config, run.provenance, run.job)]
        state = RunEnd(error).state
        try:
            run.log.append(*early, end_record(state, run.provenance, run.job, run.stats))
        except RunError as problem:  # the lake is what failed, or is gone too
            line = f"the run records do not say that the run {_HOW[state]}: {name_place(problem)}"
            logs.log_event("runs", line, level=logs.WARNING)
        raise
    run.log.append(end_record("finished", run.provenance, run.job, run.stats))


def _name_library_log(error: BaseException, log: terminal.LibraryLog | None) -> None:
    """Has the message of a failure name the file where Ray and others say more, if they wrote anything."""
    if log is None or log.is_empty() or RunEnd(error).state == "stopped" or isinstance(error, ConfigError | ArchiveEmpty):
        return
    where = f"what Ray and other libraries wrote is in {log.path}"
    if type(error) is RunError:
        error.args = (f"{error}; {where}",)
    else:
        error.add_note(where)  # a defect: Python shows it below the traceback


def _do_work(run: _Run, planning: Planning, places: pa.Table, heartbeat: Heartbeat) -> None:
    """Sends the blocks at ``places``, and what is still being listed, through the stages until every recording has its row, a
    few times over if need be."""
    config, stats, table, work = run.config, run.stats, run.table, planning.work
    stats.expect(planning.counts.pending, work.done_before, is_growing=not planning.is_over)
    run.observers.step_started("starting Ray" if config.ray.address is None else "joining the Ray cluster")
    with _machine_code(run), cluster.running_cluster(config) as resources, ExitStack() as readers:
        plan = make_plan(config, resources)
        readers.enter_context(reserve_memory(plan_heavy(config, plan, resources)))
        run.log.append(start_record(config, run.provenance, run.job, planning.counts, resources.cpus, resources.gpus))
        run.observers.step_started("loading the model")
        ledger = ClusterCrashLedger()
        stalls = StallMonitor(stats, config.ray.stall_s, lambda s: describe_wait(plan, ledger, s))
        watches = [stalls, StageCounter(plan, ledger, stats), *([NodeWatch()] if config.ray.address else [])]
        observers = Observers([*watches, run.observers])
        missing = 0
        for attempt in range(_ROUNDS):
            if attempt:  # what died between its tables may have been cut elsewhere the second time
                places = planning.write_missing()
                stats.expect(stats.done + missing, work.done_before)
            book = _open_book(places, plan, is_closed=planning.is_over)
            reader = _open_reader(places, book, run, plan, ledger)
            readers.callback(reader.stop, _PATIENCE_S)
            limits = config.lake.commit_every_s, config.limits.storage_failures
            reports = _while_alive(planning.feed(reader, book), heartbeat)
            commit_as_they_come(reports, table, stats, observers, *limits, reader.take_arrived)
            missing = planning.find_missing()
            if missing == 0:
                break
        if any(kind.reason == Erased.reason for kind in stats.failures):
            blank_manifests_by_rows(config.lake, table.forbidden, run.provenance.run_id)
        _require_all(missing, planning.counts.pending)


def _machine_code(run: _Run) -> AbstractContextManager[None]:
    """Compiles the search while Ray starts and the model loads, if it runs here and nobody has compiled it yet."""
    is_needed = run.reading is not None and needs_machine_code(run.config.decoding)
    return made_ahead(run.config.decoding) if is_needed and run.config.ray.address is None else nullcontext()


def _open_book(places: pa.Table, plan: ResourcePlan, *, is_closed: bool) -> ShareBook | None:
    """The shares for runners. A flow that the driver executes itself takes no more blocks once it has begun, so where the
    listing goes on there is a runner too."""
    if plan.runners == 1 and is_closed:
        return None
    return ShareBook(places, 1 if is_closed else choose_share(places.num_rows), is_closed=is_closed)


def _open_reader(
    places: pa.Table, book: ShareBook | None, run: _Run, plan: ResourcePlan, ledger: ClusterCrashLedger
) -> ReportReader:
    """The reports of the flow, which has a name here alone: the frames of an error would keep it, and its workers."""
    flow = _describe_flow(run, plan)
    if book is not None:
        pool = RunnerPool(flow, run.config, plan, ledger, book)
        return ReportReader(pool.read_reports(), _TICK_S, pool.interrupt)
    data = connect_places(flow, places, plan, ledger)
    return ReportReader(read_reports(data), _TICK_S, cluster.make_interrupt(data))


def _describe_flow(run: _Run, plan: ResourcePlan) -> Flow:
    """The stages of this run and what they are opened with."""
    config, grid, decode = run.config, None, None
    listed = config.model_copy(update={"archive": pin_places(run.listing)})
    if run.reading is None:  # the engine gives text itself
        emit = ActorStage(Recognize, (config, plan.threads))
    else:
        vocabulary, grid = run.reading
        emit = ActorStage(Emit, (config, vocabulary, plan.threads))
        decode = ActorStage(Decode, (config, vocabulary))
    load = Load(listed, run.table.forbidden, is_listed=True)
    return Flow(config.lake, run.provenance.run_id, load, emit, decode, Assemble(config, run.provenance, grid))


def _require_all(missing: int, wanted: int) -> None:
    """Looks in the table itself whether every recording has its row. Raises RunError where rows are missing."""
    if missing:
        raise RunError(
            f"{missing} of {wanted} recordings got no row; what is committed stays, run the same command again for the others"
        )
