"""What a run leaves to read: its summary for people, and its two records in ``runs/`` of the lake.

An *object* is what the archive lists; a *recording* is what gets a row. An object with sound in it is one recording, an
archive object (ZIP, TAR) as many as it has members. ``found``, ``skipped``, ``claimed``, ``erased`` and ``retried`` count
objects, since they are decided before an object is opened. ``ok``, ``failed`` and the live progress count recordings. ``runs``
of the lake stores the former in the record of the start and the latter in that of the end.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from dictalake import logs
from dictalake.archive.findings import Findings
from dictalake.config.locations import EMBEDDED
from dictalake.config.sections import Config
from dictalake.lake.runs import RunRecord, describe_config, name_places
from dictalake.observers.base import State
from dictalake.observers.stats import RunStats
from dictalake.transcript.provenance import Provenance
from dictalake.workflow.worklist import Counts

# Whether the view `transcripts` shows the rows of a run: first of all, where nothing newer was promoted, or not at all.
Standing = Literal["production", "earlier", "experiment"]
_SYNTHETIC = f"{EMBEDDED}medasr-mini"
SYNTHETIC_ADVICE = (
    "medasr-mini knows synthetic voices only: do not use it for patients. For real voices take google/medasr "
    "(--acoustic.model google/medasr, needs a Hugging Face token), or Whisper tiny.en, which needs no account and no network "
    "(--config whisper --acoustic.model packaged:tiny.en)"
)


def name_model(config: Config) -> str:
    """The model's name for people: a Hub id in full, and the last part of a folder or an embedded model."""
    model = config.acoustic.model
    if model.startswith(EMBEDDED) or Path(model).expanduser().is_dir():
        return Path(model.removeprefix(EMBEDDED)).name
    return model


def is_synthetic(config: Config) -> bool:
    """Whether the model was trained on synthetic voices alone."""
    return config.acoustic.model == _SYNTHETIC


def warn_of_model(config: Config, job: str) -> None:
    """Warns, once in a process, that the embedded model is not for patients. The one line of a night says so itself."""
    if is_synthetic(config):
        _warn_once(logs.INFO if job == "nightly" else logs.WARNING)


@cache
def _warn_once(level: int) -> None:
    logs.log_event("synthetic_model", SYNTHETIC_ADVICE, level=level)


@dataclass(frozen=True)
class RunSummary:
    """What a run did.

    Objects: ``found`` are in the archive; ``skipped`` were done before, of which ``skipped_failed`` rows failed; ``claimed``
    were left to the live runs ``others``; ``erased`` may not be transcribed; ``retried`` were tried again; ``archives`` were
    unpacked. Recordings: ``ok`` and ``failed``. ``failures`` maps "reason (stage)" to their count, ``uncovered`` the recordings
    with more than ``quality.uncovered_s`` of speech without a word to those seconds, ``lost`` the transcribed ones with sound
    that could not be decoded to its seconds. Of a folder on a disk ``aliases`` counts links to what is listed anyway,
    ``left_out`` the other entries without a row and ``unread_folders`` the folders that could not be listed, by reason.
    ``hidden_warnings`` are in ``log_file``. Of ``judged`` recordings, ``conversations`` look like one.
    """

    run_id: str
    fingerprint: str
    found: int
    skipped: int
    skipped_failed: int
    claimed: int
    erased: int
    retried: int
    others: tuple[str, ...]
    archives: int
    ok: int
    failed: int
    audio_s: float
    wall_s: float
    retries: int
    failures: dict[str, int]
    uncovered: dict[str, float]
    lost: dict[str, float]
    model: str = ""
    is_synthetic: bool = False
    lake_uri: str = ""
    state: State = "finished"
    aliases: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    unread_folders: dict[str, int] = field(default_factory=dict)
    hidden_warnings: int = 0
    log_file: str | None = None
    standing: Standing = "production"
    judged: int = 0
    conversations: int = 0

    @property
    def exit_code(self) -> int:
        """3 where a recording failed, or where a folder could not be listed, so that nobody knows what is in it."""
        return 3 if self.failed or self.unread_folders else 0

    @property
    def objects(self) -> int:
        """The number of objects that the archive lists."""
        return self.found

    @property
    def recordings(self) -> int:
        """The number of recordings that got a row from this run."""
        return self.ok + self.failed


def start_record(
    config: Config,
    provenance: Provenance,
    job: str,
    counts: Counts | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
) -> RunRecord:
    """The record of the start. ``cpus`` and ``gpus`` of the cluster are None if there was nothing to do; ``counts`` is None if
    the work is not known."""
    text, config_hash = describe_config(config)
    archive = name_places(config.archive)
    return RunRecord(
        run_id=provenance.run_id,
        event="started",
        job=job,
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
        cpus=cpus,
        gpus=gpus,
        archive_uri=archive.manifest or archive.uri,
        recordings=None if counts is None else counts.found,
        skipped=None if counts is None else counts.skipped,
        claimed=None if counts is None else counts.claimed,
        erased=None if counts is None else counts.erased,
        retried=None if counts is None else counts.retried,
    )


def end_record(event: State, provenance: Provenance, job: str, stats: RunStats) -> RunRecord:
    """The record of the end, with the counts of the rows that the run wrote."""
    record = RunRecord(
        run_id=provenance.run_id,
        event=event,
        job=job,
        fingerprint=provenance.fingerprint,
        ok=stats.ok,
        failed=stats.failed,
        audio_hours=stats.audio_s / 3600,
        wall_s=stats.wall_s,
        speed=stats.speed,
        storage_retries=stats.retries,
        failures=stats.named_failures,
    )
    # Where the archive was listed beside the work, the record of the start does not have them all.
    return replace(record, **stats.objects)  # type: ignore[arg-type]


def summarise(
    config: Config, provenance: Provenance, counts: Counts, others: tuple[str, ...], stats: RunStats, findings: Findings
) -> RunSummary:
    """What the commands print; ``others`` are the live runs beside this one."""
    return RunSummary(
        aliases=findings.aliases,
        left_out=dict(findings.left_out),
        unread_folders=dict(findings.unread_folders),
        model=name_model(config),
        is_synthetic=is_synthetic(config),
        lake_uri=config.lake.uri or "",
        run_id=provenance.run_id,
        fingerprint=provenance.fingerprint,
        found=counts.found,
        skipped=counts.skipped,
        skipped_failed=counts.skipped_failed,
        claimed=counts.claimed,
        erased=counts.erased,
        retried=counts.retried,
        others=others,
        archives=len(stats.archives),
        ok=stats.ok,
        failed=stats.failed,
        audio_s=stats.audio_s,
        wall_s=stats.wall_s,
        retries=stats.retries,
        failures=stats.named_failures,
        uncovered=stats.uncovered,
        lost=stats.lost,
        judged=stats.judged,
        conversations=stats.conversations,
    )


def number_summary(summary: RunSummary) -> dict[str, Any]:
    """The numbers of a summary for machines: without recording ids."""
    names = (
        "objects",
        "recordings",
        "found",  # as objects; the name before 0.2
        "skipped",
        "skipped_failed",
        "claimed",
        "erased",
        "retried",
        "archives",
        "ok",
        "failed",
        "failures",
        "aliases",
        "left_out",
        "unread_folders",
    )
    return {name: getattr(summary, name) for name in names} | {
        "fingerprint": summary.fingerprint,
        "model": summary.model,
        "state": summary.state,
        "standing": summary.standing,
        "storage_retries": summary.retries,
        "others": list(summary.others),
        "audio_hours": round(summary.audio_s / 3600, 4),
        "wall_s": round(summary.wall_s, 1),
        "speed": round(summary.audio_s / summary.wall_s, 2) if summary.wall_s else 0.0,
        "uncovered_recordings": len(summary.uncovered),
        "uncovered_s": round(sum(summary.uncovered.values()), 1),
        "incomplete_recordings": len(summary.lost),
        "lost_s": round(sum(summary.lost.values()), 1),
        "judged_recordings": summary.judged,
        "conversations": summary.conversations,
    }
