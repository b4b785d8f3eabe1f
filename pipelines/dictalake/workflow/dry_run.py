"""What a backfill would do, without doing it: nothing is written, neither rows nor a record of the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from dictalake.acoustic.checkpoint import find_checkpoint
from dictalake.archive.manifest import scan_recordings
from dictalake.config.sections import Config
from dictalake.errors import ConfigError
from dictalake.lake.delta import has_table, open_table, read_parquet
from dictalake.lake.places import TRANSCRIPTS_FOLDER
from dictalake.lake.schema import TRANSCRIPTS
from dictalake.lake.storage import open_storage
from dictalake.lake.table import DONE
from dictalake.lake.tombstones import read_erased
from dictalake.workflow.archive_checks import begin_findings, check_listing
from dictalake.workflow.estimates import estimate_work
from dictalake.workflow.fingerprint_change import NewFingerprint, find_new, take_name
from dictalake.workflow.identity import identify
from dictalake.workflow.misread import find_again
from dictalake.workflow.summary import name_model
from dictalake.workflow.worklist import CLAIMED, Counts, Retry, WorkList


@dataclass(frozen=True)
class DryRun:
    """What there is to do. The hours are estimated from ``size_bytes`` by what the lake holds, the cost from its runs' speed;
    None where the lake cannot tell. What other runs have leased counts as work.
    """

    fingerprint: str
    model: str
    counts: Counts
    size_bytes: int
    audio_hours: float | None
    wall_hours: float | None
    cost: float | None
    currency: str
    new: NewFingerprint | None


def plan_dry_run(config: Config, retry: Retry | None = None, *, allow_empty: bool = False) -> DryRun:
    """Raises ConfigError, RunError as a run would before it begins."""
    if config.lake.uri is None:
        raise ConfigError("lake.uri is missing: say where the transcripts go, e.g. --lake.uri ./lake")
    findings = begin_findings(config, config.archive)
    provenance = take_name(config, identify(config, find_checkpoint(config.acoustic)))
    new = find_new(config, provenance)
    erased = read_erased(config.lake)
    lost = find_again(config, provenance.fingerprint, retry)
    with TemporaryDirectory(prefix="dictalake-") as folder:
        work = WorkList(scan_recordings(config.archive, findings), erased, config, Path(folder), findings)
        check_listing(config, config.archive, findings, allow_empty=allow_empty)
        work.refresh(
            lambda: _find_done(config, provenance.fingerprint), lambda: ds.dataset(CLAIMED.empty_table()), retry, lost=lost
        )
        counts, size_bytes = work.counts, work.sum_pending_bytes()
    found, model = estimate_work(config, size_bytes), name_model(config)
    hours = found.audio_hours, found.wall_hours, found.cost
    return DryRun(provenance.fingerprint, model, counts, size_bytes, *hours, config.report.currency, new)


def _find_done(config: Config, fingerprint: str) -> ds.Dataset:
    storage = open_storage(config.lake, TRANSCRIPTS_FOLDER)
    if not has_table(storage):
        return ds.dataset(DONE.empty_table())
    adds = pa.table(open_table(storage, TRANSCRIPTS, to_read=True).get_add_actions(flatten=True))
    paths = adds.filter(pc.equal(adds["partition.fingerprint"], fingerprint))["path"].to_pylist()
    return read_parquet(paths, DONE, storage)
