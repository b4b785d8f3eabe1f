"""What a run tells: its summary for people, and its two records in ``runs/`` of the lake."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any, Literal

from dictalake.config.sections import Config
from dictalake.lake.runs import RunRecord, describe_config
from dictalake.observers.progress import RunStats
from dictalake.transcript.provenance import Provenance
from dictalake.workflow.worklist import Counts


@dataclass(frozen=True)
class RunSummary:
    """What a run did. ``found`` objects are in the archive; ``skipped`` were done before, of which ``skipped_failed`` rows
    failed; ``claimed`` were left to the live runs ``others``; ``erased`` may not be transcribed; ``retried`` were tried again.
    ``failures`` maps reason to count, ``uncovered`` the recordings with more than ``quality.uncovered_s`` of speech without a
    word to those seconds. Of the ``archives`` among the objects (ZIP, TAR) each file counts in ``ok`` or ``failed``.
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


def start_record(
    config: Config,
    provenance: Provenance,
    job: str,
    counts: Counts | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
) -> RunRecord:
    """At the start; ``cpus`` and ``gpus`` of the cluster are None where there was nothing to do, ``counts`` where it is not
    known what there is to do."""
    text, config_hash = describe_config(config)
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
        archive_uri=config.archive.manifest or config.archive.uri,
        recordings=None if counts is None else counts.found,
        skipped=None if counts is None else counts.skipped,
        claimed=None if counts is None else counts.claimed,
        erased=None if counts is None else counts.erased,
        retried=None if counts is None else counts.retried,
    )


def end_record(event: Literal["finished", "failed"], provenance: Provenance, job: str, stats: RunStats) -> RunRecord:
    """At the end, with the counts of what the run wrote."""
    return RunRecord(
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
        failures=dict(stats.failures),
    )


def summarise(provenance: Provenance, counts: Counts, others: tuple[str, ...], stats: RunStats) -> RunSummary:
    """What the commands print; ``others`` are the live runs beside this one."""
    return RunSummary(
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
        failures=dict(stats.failures),
        uncovered=stats.uncovered,
    )


def number_summary(summary: RunSummary) -> dict[str, Any]:
    """The numbers of a summary for machines: without recording ids."""
    names = (
        "found",
        "skipped",
        "skipped_failed",
        "claimed",
        "erased",
        "retried",
        "archives",
        "ok",
        "failed",
        "failures",
    )
    return {name: getattr(summary, name) for name in names} | {
        "fingerprint": summary.fingerprint,
        "storage_retries": summary.retries,
        "others": list(summary.others),
        "audio_hours": round(summary.audio_s / 3600, 4),
        "wall_s": round(summary.wall_s, 1),
        "speed": round(summary.audio_s / summary.wall_s, 2) if summary.wall_s else 0.0,
        "uncovered_recordings": len(summary.uncovered),
        "uncovered_s": round(sum(summary.uncovered.values()), 1),
    }
