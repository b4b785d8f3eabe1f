"""Two runs at once over one archive: the real leases, search for work, manifests and commits, with given rows for transcripts.

What is not in it is Ray: a block becomes a staged file at once, in the thread of its run.
"""

from __future__ import annotations

import tempfile
import threading
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dictalake.config.sections import Config, Lake
from dictalake.lake.claims import LeaseStore, make_lease
from dictalake.lake.manifests import Manifests
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.records import Recording
from dictalake.workflow import columns
from dictalake.workflow.worklist import CLAIMED, Retry, WorkList

_CONFIG = Config.model_validate({"ray": {"block_rows": 2}})
_RETRY = Retry(reasons=("not_audio", "changed_during_read"))
_LEASE_S = 1.5
_PATIENCE_S = 300.0


@dataclass(frozen=True)
class Shared:
    """What two runs did together: ``pending`` of both, ``claimed`` by one and left alone by the other, ``rows`` that were
    committed, and ``already_there``, which both had made."""

    pending: int
    claimed: int
    rows: int
    already_there: int


def run_two(
    lake: Lake, fingerprint: str, listed: Sequence[Recording], rows: Mapping[str, dict[str, Any]], *, looks_at_leases: bool
) -> Shared:
    """Two runs of one fingerprint list the same archive. ``rows`` are the transcripts by recording.

    No run ends before the other has planned. Unless they look at leases, as if each had slept through its own, both do all of
    the work.
    """
    lake = lake.model_copy(update={"lease_s": _LEASE_S})
    planned = threading.Barrier(2, timeout=_PATIENCE_S)

    def run(number: int) -> Shared:
        try:
            return do_share(number)
        except BaseException:
            planned.abort()
            raise

    def do_share(number: int) -> Shared:
        table, board, manifests = TranscriptTable(lake), LeaseStore(lake), Manifests(lake)
        lease = make_lease(f"run-{number}-{uuid.uuid4().hex}", "nightly", fingerprint)
        with board.hold(lease, lambda lease: lease) as renew, tempfile.TemporaryDirectory() as folder:
            peers = board.await_peers(lease, renew, check=renew.check) if looks_at_leases else []
            work = WorkList(listed, table.read_erasures(), _CONFIG, Path(folder))
            taken = [peer.run_id for peer in peers]
            work.refresh(
                lambda: table.committed(fingerprint), lambda: manifests.find(taken, CLAIMED), _RETRY, known=table.known
            )
            blocks = list(work.blocks())
            if blocks:
                tables = [columns.recordings_to_table(block) for block in blocks]
                list(manifests.write(lease.run_id, tables, tables[0].schema))
            renew(replace(lease, state="running"))
            planned.wait()
            committed = there = 0
            for block in blocks:
                made = [rows[one.recording_id] | {"attempt": one.attempt, "run_id": lease.run_id} for one in block]
                result = table.commit(write_staged(make_transcripts(made), lake))
                committed, there = committed + result.rows, there + result.already_there
            return Shared(work.counts.pending, work.counts.claimed, committed, there)

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(run, range(2))
    return Shared(
        one.pending + other.pending,
        one.claimed + other.claimed,
        one.rows + other.rows,
        one.already_there + other.already_there,
    )
