"""The story of a run, top to bottom:

    archive ──► manifest ──► load ──► emit ──► decode ──► finish ──► lake
    (objects)                CPU      GPU      CPU        CPU        (Delta table)

What is done is read from the table under this run's fingerprint, and is left out. The rest goes through Ray Data in
blocks; the last stage writes Parquet files that nobody sees until the driver, here, commits them. Killed at any moment,
the same command goes on where the last commit was.
"""

from __future__ import annotations

import platform
import queue
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from pipelines import blocks, cluster
from pipelines.acoustic.checkpoint import Checkpoint, find_checkpoint, locate_lm
from pipelines.archive.manifest import find_recordings
from pipelines.config import Config
from pipelines.decoding.decoder import open_decoder
from pipelines.decoding.vocabulary import Vocabulary
from pipelines.errors import ConfigError, DictalakeError, RunError
from pipelines.lake.runs import RunLog, RunRecord, describe_config
from pipelines.lake.staging import StagedFile
from pipelines.lake.table import TranscriptTable
from pipelines.loading import Load
from pipelines.progress import ProgressReport, Tally
from pipelines.records import FrameGrid, Recording
from pipelines.stages import Decode, Emit, Finish
from pipelines.transcript.provenance import Provenance, make_provenance

import ray.data  # after cluster, which sets what Ray reads when it is imported  # isort: skip
import ray.exceptions  # isort: skip

# A small archive is cut finer than ray.block_rows, so that it is spread over workers and committed in steps.
_LEAST_BLOCKS, _SMALLEST_BLOCK = 16, 4
_TICK_S = 1.0
_ADVICE_OF_RAY = "\nFailed to apply UDF"  # what Ray appends to the words of an error that a stage raised


@dataclass(frozen=True)
class RunSummary:
    """What a run did. ``skipped`` recordings were done before it, of which ``skipped_failed`` failed; ``failures`` maps reason
    to count, ``uncovered`` the recordings with more than ``quality.uncovered_s`` of speech without a word to those seconds.
    ``found`` and ``skipped`` count objects; of the ``archives`` among them (ZIP, TAR) each file counts in ``ok`` or ``failed``.
    """

    run_id: str
    fingerprint: str
    found: int
    skipped: int
    skipped_failed: int
    archives: int
    ok: int
    failed: int
    audio_s: float
    wall_s: float
    failures: dict[str, int]
    uncovered: dict[str, float]


def transcribe(config: Config, console: Console | None = None) -> RunSummary:
    """Transcribes what is in the archive and not yet in the lake. Raises ConfigError, RunError."""
    console = console or Console(stderr=True)
    if config.lake.uri is None:
        raise ConfigError("lake.uri is missing: say where the transcripts go, e.g. --lake.uri ./lake")
    Load(config)  # refuses what is missing before anything starts
    checkpoint = find_checkpoint(config.acoustic)
    # Workers that start later, or elsewhere, take the weights that are hashed here, whatever the hub holds by then.
    config = config.model_copy(
        update={"acoustic": config.acoustic.model_copy(update={"revision": checkpoint.identity.revision})}
    )
    vocabulary, grid = read_vocabulary(checkpoint)
    provenance = _identify(config, checkpoint, vocabulary)

    table = TranscriptTable(config.lake)
    found = list(find_recordings(config.archive))
    done = table.done(provenance.fingerprint)
    pending = leave_out_done(found, done)
    runs = RunLog(config.lake)
    tally = Tally(wanted=len(pending), done_before={r.recording_id: len(r.done_members) for r in pending if r.done_members})
    with cluster.running_cluster(config) as resources:
        plan = cluster.make_plan(config, resources)
        if pending:
            runs.write_manifest(provenance.run_id, blocks.recordings_to_table(pending))
        runs.append(_start_record(config, provenance, resources, len(found), len(pending)))
        try:
            if pending:
                with ProgressReport(tally, console) as progress:
                    reports = _run_stages(pending, config, plan, vocabulary, grid, provenance)
                    _commit_as_they_come(reports, table, tally, progress, config.lake.commit_every_s)
                _require_all(tally)
        except BaseException:
            runs.append(_end_record("failed", provenance, tally))
            raise
        runs.append(_end_record("finished", provenance, tally))
    return RunSummary(
        run_id=provenance.run_id,
        fingerprint=provenance.fingerprint,
        found=len(found),
        skipped=len(found) - len(pending),
        skipped_failed=count_failed(found, done),
        archives=len(tally.archives),
        ok=tally.ok,
        failed=tally.failed,
        audio_s=tally.audio_s,
        wall_s=tally.wall_s,
        failures=dict(tally.failures),
        uncovered=tally.uncovered,
    )


def _run_stages(
    pending: list[Recording],
    config: Config,
    plan: cluster.Plan,
    vocabulary: Vocabulary,
    grid: FrameGrid,
    provenance: Provenance,
) -> Iterator[pa.Table]:
    """The flow itself: recordings in, one report per block out, in whatever order blocks finish."""
    recordings = ray.data.from_arrow([blocks.recordings_to_table(block) for block in plan_blocks(pending, config)])
    load, emit, decode, finish = plan.stages
    reports = (
        recordings.map_batches(
            Load(config),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.TaskPoolStrategy(size=load.workers),
            num_cpus=load.cpus,
            memory=load.memory_bytes,
        )
        .map_batches(
            Emit,
            fn_constructor_args=(config, vocabulary, plan.threads),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=emit.workers),
            num_cpus=emit.cpus,
            memory=emit.memory_bytes,
            num_gpus=emit.gpus,
        )
        .map_batches(
            Decode,
            fn_constructor_args=(config, vocabulary),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=decode.workers),
            num_cpus=decode.cpus,
            memory=decode.memory_bytes,
        )
        .map_batches(
            Finish(config, provenance, grid),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.TaskPoolStrategy(size=finish.workers),
            num_cpus=finish.cpus,
            memory=finish.memory_bytes,
        )
    )
    with _plain_errors():
        yield from reports.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def _commit_as_they_come(
    reports: Iterable[pa.Table], table: TranscriptTable, tally: Tally, progress: ProgressReport, every_s: float
) -> None:
    """Commits finished files every few seconds, and what is left at the end or when the run is stopped.

    Between two reports the clock goes on: what is finished is committed, and the progress lives, while one block takes long.
    """
    waiting: list[StagedFile] = []
    last_commit = time.monotonic()
    try:
        for report in _until_exhausted(reports, _TICK_S):
            for row in report.to_pylist() if report is not None else ():
                waiting.append(StagedFile.from_row(row))
                tally.count_archives(zip(row["archive_ids"], row["archive_rows"], strict=True))
                tally.failed += len(row["failures"])
                tally.ok += len(row["recording_ids"]) - len(row["failures"])
                tally.audio_s += row["audio_s"]
                tally.failures.update(f"{failure['reason']} ({failure['stage']})" for failure in row["failures"])
                tally.uncovered |= {lost["recording_id"]: lost["seconds"] for lost in row["uncovered"]}
            if waiting and time.monotonic() - last_commit >= every_s:
                table.commit(waiting)
                waiting, last_commit = [], time.monotonic()
            progress.update()
    finally:
        if waiting:
            table.commit(waiting)


def _require_all(tally: Tally) -> None:
    """The law, counted: a worker that died between two of its tables, and found another error the second time, may have cut
    them elsewhere. Raises RunError where rows are missing."""
    if tally.done < tally.wanted:
        raise RunError(
            f"{tally.wanted - tally.done} of {tally.wanted} recordings got no row; what is committed stays, the same command "
            "takes up the others"
        )


def _until_exhausted(reports: Iterable[pa.Table], tick_s: float) -> Iterator[pa.Table | None]:
    """The reports as they come, and None after each ``tick_s`` without one."""
    arrived: queue.Queue[pa.Table | BaseException | None] = queue.Queue()

    def read() -> None:
        try:
            for report in reports:
                arrived.put(report)
            arrived.put(None)
        except BaseException as error:
            arrived.put(error)

    threading.Thread(target=read, name="reports", daemon=True).start()
    while True:
        try:
            report = arrived.get(timeout=tick_s)
        except queue.Empty:
            yield None
            continue
        if report is None:
            return
        if isinstance(report, BaseException):
            raise report
        yield report


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What a worker met, without Ray's wrapping: a ConfigError as itself, all else by its type and place.

    The words of an exception, and Ray's, may quote a path or a row: they stay out.
    """
    try:
        yield
    except ray.exceptions.RayError as error:
        causes: list[BaseException] = [error]
        while (inner := getattr(causes[-1], "cause", None) or causes[-1].__cause__) is not None and inner not in causes:
            causes.append(inner)
        for cause in causes:
            if isinstance(cause, DictalakeError) and not isinstance(cause, ray.exceptions.RayError):
                raise type(cause)(str(cause).partition(_ADVICE_OF_RAY)[0]) from None
        names = " of ".join(dict.fromkeys(type(cause).__name__ for cause in reversed(causes)))
        raise RunError(
            f"a worker failed and the run cannot go on ({names}); what is committed stays, the same command goes on"
        ) from None


def leave_out_done(found: list[Recording], done: pa.Table) -> list[Recording]:
    """The recordings of ``found`` that have no committed row, whatever its status.

    An archive object is done when as many rows of it are committed as its files say it makes; one that is not yet carries the
    ids that are. Its own row counts among them only if it is of the same look at it (part of it is damaged): one that says
    that it could not be opened, or read again, is of another.
    """
    plain = set(done.filter(pc.is_null(done["archive_id"]))["recording_id"].to_pylist())
    members: dict[str, dict[str, int]] = {}  # archive_id → recording_id → archive_rows
    own: dict[str, int] = {}
    for row in done.filter(pc.is_valid(done["archive_id"])).to_pylist():
        if row["recording_id"] == row["archive_id"]:
            own[row["archive_id"]] = row["archive_rows"]
        else:
            members.setdefault(row["archive_id"], {})[row["recording_id"]] = row["archive_rows"]
    pending = []
    for recording in found:
        name = recording.recording_id
        if name not in members:
            if name not in plain and own.get(name) != 1:  # 1: it could not be opened
                pending.append(recording)
            continue
        wanted = max(members[name].values())
        committed = {*members[name], *([name] if own.get(name) == wanted else [])}
        if len(committed) < wanted:
            pending.append(replace(recording, done_members=tuple(sorted(committed))))
    return pending


def count_failed(found: list[Recording], done: pa.Table) -> int:
    """How many recordings of ``found``, or inside them, have committed rows the last attempt of which failed."""
    ids = {recording.recording_id for recording in found}
    last = {
        row["recording_id"]: row["status"]
        for row in sorted(done.to_pylist(), key=lambda row: row["attempt"])
        if (row["archive_id"] or row["recording_id"]) in ids
    }
    return sum(status == "failed" for status in last.values())


def plan_blocks(recordings: Sequence[Recording], config: Config) -> Iterator[list[Recording]]:
    """Recordings that travel and are committed together: bounded in number and in stored bytes, so that a block of long
    recordings stays small and a small archive still makes several blocks."""
    block_rows = min(config.ray.block_rows, max(_SMALLEST_BLOCK, -(-len(recordings) // _LEAST_BLOCKS)))
    block: list[Recording] = []
    size_bytes = 0
    for recording in recordings:
        over = size_bytes + recording.size_bytes > config.ray.block_mb * 1e6
        if block and (over or len(block) >= block_rows):
            yield block
            block, size_bytes = [], 0
        block.append(recording)
        size_bytes += recording.size_bytes
    if block:
        yield block


def read_vocabulary(checkpoint: Checkpoint) -> tuple[Vocabulary, FrameGrid]:
    """What the columns of the model's emissions mean, and where its frames lie, without loading its weights."""
    from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer

    from pipelines.acoustic.ctc import frame_grid

    config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=False)
    extractor = AutoFeatureExtractor.from_pretrained(checkpoint.folder, trust_remote_code=False)
    vocabulary = Vocabulary.from_tokenizer(tokenizer, config.vocab_size, config.pad_token_id)
    return vocabulary, frame_grid(config, extractor)


def _identify(config: Config, checkpoint: Checkpoint, vocabulary: Vocabulary) -> Provenance:
    """Names the run and everything that can change its words. Opens the decoder once: a bad one fails here, not in a worker."""
    identity = checkpoint.identity
    here = locate_lm(config)
    return make_provenance(
        here,
        run_id=f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}",
        model_id=identity.model_id,
        model_revision=identity.revision,
        model_sha256=identity.sha256,
        decoder=open_decoder(here.decoding, vocabulary).name,
    )


def _start_record(config: Config, provenance: Provenance, resources: cluster.Resources, found: int, pending: int) -> RunRecord:
    text, config_hash = describe_config(config)
    return RunRecord(
        run_id=provenance.run_id,
        event="started",
        fingerprint=provenance.fingerprint,
        acoustic_hash=provenance.acoustic_hash,
        decoding_hash=provenance.decoding_hash,
        formatting_hash=provenance.formatting_hash,
        config=text,
        config_hash=config_hash,
        pipeline_version=provenance.pipeline_version,
        git_commit=provenance.git_commit,
        versions=provenance.versions,
        host=platform.node(),
        cpus=resources.cpus,
        gpus=resources.gpus,
        archive_uri=config.archive.manifest or config.archive.uri,
        recordings=found,
        skipped=found - pending,
    )


def _end_record(event: Literal["finished", "failed"], provenance: Provenance, tally: Tally) -> RunRecord:
    return RunRecord(
        run_id=provenance.run_id,
        event=event,
        fingerprint=provenance.fingerprint,
        ok=tally.ok,
        failed=tally.failed,
        audio_hours=tally.audio_s / 3600,
        wall_s=tally.wall_s,
        speed=tally.speed,
        failures=dict(tally.failures),
    )
