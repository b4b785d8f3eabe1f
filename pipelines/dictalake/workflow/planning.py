"""What a run has to do, from the first page of its listing on: the work is planned in parts while the listing goes on.

A part is what was listed since the one before. It is planned as all of the work would be: what the lake holds and what other
runs have leased is left out, and the rest is written as a part of the run's manifest. A listing that is over soon is one part,
and so is one that may not be cut (``may_begin_early``). The first part also waits until something in it may be transcribed.

Runs plan in turns. A run whose parts hold nothing new gives the turn back between them, so that another one need not wait until
its listing is over. A part that cannot be planned because the storage fails is planned again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pyarrow as pa

from dictalake import logs, retries, stops
from dictalake.archive.findings import Findings
from dictalake.config.locations import resolve
from dictalake.config.sections import Archive, Config
from dictalake.config.uris import find_path
from dictalake.errors import ArchiveEmpty, RunError
from dictalake.lake.claims import Heartbeat, Lease, LeaseStore
from dictalake.lake.erasers import blank_manifests
from dictalake.lake.fingerprints import list_fingerprints
from dictalake.lake.manifests import Manifests
from dictalake.lake.table import TranscriptTable
from dictalake.lake.turns import Turn
from dictalake.observers.stats import RunStats
from dictalake.workflow import columns
from dictalake.workflow.flow import MOST_TASKS
from dictalake.workflow.listing_reader import ListingReader
from dictalake.workflow.misread import find_again
from dictalake.workflow.report_reader import ReportReader
from dictalake.workflow.shares import ShareBook
from dictalake.workflow.worklist import CLAIMED, Counts, Retry, WorkList, plain_errors

_PART_S = 20.0  # the listing of one part takes so long at least: a part is a look at the whole lake
_REST = 3.0  # after a look at the lake, times what it took
_LOOK_S = 1.0
_STEP_S = 0.25  # between two looks at the listing while reports come: each takes in what has arrived, for some milliseconds
PLACES = pa.schema([pa.field("part", pa.int64()), pa.field("group", pa.int64())])


def may_begin_early(archive: Archive, table: TranscriptTable, config: Config) -> bool:
    """Whether work may begin before the listing of ``archive`` is over.

    A folder may have older names, by links that the listing meets last. A recording that the lake knows by one of them keeps
    its id, and one that was erased by one of them stays out. So a folder is listed to its end where the lake has anything.
    """
    if archive.manifest or archive.inventory or archive.uri is None or find_path(resolve(archive.uri)) is None:
        return True
    return not list_fingerprints(config.lake) and not table.read_erasures().hashes


@dataclass
class Planning:
    """The work of a run as far as it is known. ``peers`` are the live runs beside it when its turn to plan came.

    ``on_listed`` is called once the listing is over, before the last part is planned; it may raise. ``on_planned`` is called
    when all of the archive is planned.
    """

    config: Config
    run_id: str
    fingerprint: str
    table: TranscriptTable
    stats: RunStats
    findings: Findings
    listing: ListingReader
    work: WorkList
    store: LeaseStore
    lease: Lease
    renew: Heartbeat
    peers: list[Lease]
    retry: Retry | None = None
    is_early: bool = False
    on_listed: Callable[[], None] = lambda: None
    on_planned: Callable[[Planning], None] = lambda _: None
    counts: Counts = field(default_factory=Counts)
    size_bytes: int = 0  # of the work
    is_over: bool = False  # all of the archive is planned
    others: dict[str, None] = field(default_factory=dict)  # the runs beside this one: ids, in order
    _new: int = 0  # recordings that no part has yet
    _parts: int = 0  # planned
    _next_file: int = 0  # of the manifest
    _has_first_turn: bool = True  # the turn for which the run has waited before it planned anything
    _turn: Turn | None = None
    _part: int | None = None  # closed, and not planned yet
    _is_listed: bool = False  # ``on_listed`` was called
    _failures: int = 0  # to plan, one after the other
    _failing_since: float = 0.0
    _again_at: float = 0.0
    _planned_at: float = 0.0
    _took_s: float = 0.0
    _stepped_at: float = 0.0
    _lost: pa.Table | None = None  # rows that lost sound, as they were when the run began

    def plan_first(self) -> pa.Table:
        """The places of the first blocks, as soon as there are any; of all blocks where the listing is over by then."""
        self._planned_at = time.monotonic()
        while not self.listing.is_over:
            self._take(_LOOK_S)
            if self.is_early and self._may_begin() and (self._is_asking or self._is_due()):
                places = self._plan_in_turn(self.table)
                if places is not None and self.counts.pending:
                    return places
        while not self.is_over:
            places = self._plan_in_turn(self.table, is_last=not (self._part is not None and self._new))
            if places is None:
                self._take(0.0)
                retries.pause(_LOOK_S)
            elif self.counts.pending:
                return places
        return PLACES.empty_table()

    def feed(self, reader: ReportReader, book: ShareBook | None) -> Iterator[pa.Table | None]:
        """The reports of ``reader``. Between them the rest of the archive is planned, and goes into ``book``."""
        for report in reader:
            yield report
            if book is not None and not self.is_over and time.monotonic() - self._stepped_at >= _STEP_S:
                self._go_on(book)
                self._stepped_at = time.monotonic()

    def find_missing(self) -> int:
        """How many recordings of this run have no row, now that it is over; ``blocks`` of the work are these."""
        self._find(self.table, None, is_same_run=True)
        return self.work.counts.pending

    def write_missing(self) -> pa.Table:
        """The places of their blocks."""
        return self._write(self.table)

    def _take(self, patience_s: float) -> None:
        with plain_errors():
            found = self.listing.take(patience_s)
        self.renew.check()
        stops.check()
        if found:
            self.work.add(found)
            self._new += len(found)

    def _may_begin(self) -> bool:
        """A manifest of which no line may be read is refused as a whole, once it was read."""
        return self.findings.allowed > 0 or self.findings.not_allowed == 0

    def _go_on(self, book: ShareBook) -> None:
        """One step: takes in what was listed, and plans it when it is due and this run's turn."""
        self._take(0.0)
        is_listed = self.listing.is_over
        if is_listed and not self._new and self._part is None:
            self._note_listed()
            self.is_over = True
            self.stats.expect_more(0, is_growing=False)
            self.on_planned(self)
            book.close()
            return
        is_last = is_listed and not (self._part is not None and self._new)
        if not self._is_asking and not is_last and not self._is_due(book):
            return
        before = self.counts.pending
        places = self._plan_in_turn(None, is_last=is_last)
        if places is None:
            return
        self.stats.expect_more(self.counts.pending - before, is_growing=not is_last)
        book.add(places, choose_share(places.num_rows))
        if is_last:
            book.close()

    @property
    def _is_asking(self) -> bool:
        """Whether a part is due that is not planned yet."""
        return self._turn is not None or self._failures > 0

    def _plan_in_turn(self, table: TranscriptTable | None, *, is_last: bool = False) -> pa.Table | None:
        """Plans the next part; None where it is not this run's turn, or where that failed. A failure ends no run that has
        planned before: as long as its own lease can be written, and for ``lake.lease_s`` seconds.

        Without ``table`` another one is asked: that which commits follows the log, and knows what the stages leave out.
        """
        if time.monotonic() < self._again_at:
            return None
        try:
            peers = self._await_turn()
            if peers is None:
                return None
            if is_last:
                self._note_listed()
            places = self._plan(peers, table or TranscriptTable(self.config.lake), is_last=is_last)
        except ArchiveEmpty:
            raise
        except RunError as error:
            self.renew.check()
            self._note_failure(error)
            return None
        self._failures = 0
        self._end_turn()
        if is_last:
            self.on_planned(self)  # what fails here ends the run: the part is planned, and is not planned again
        return places

    def _note_listed(self) -> None:
        if not self._is_listed:
            self._is_listed = True
            self.on_listed()

    def _note_failure(self, error: RunError) -> None:
        """Raises ``error`` where it is not worth another try."""
        now = time.monotonic()
        if self._failures == 0:
            self._failing_since = now
        self._failures += 1
        if self._parts == 0 or now - self._failing_since >= self.store.lease_s:
            raise error
        self._again_at = now + retries.STORAGE_REQUEST.pause_s(self._failures)
        if self._failures == 1:
            line = "the next part of the archive could not be planned, as the lake did not answer; the run tries again"
            logs.log_event("planning", line, level=logs.WARNING)

    def _await_turn(self) -> list[Lease] | None:
        """The live runs beside this one if it is its turn now. Raises RunError."""
        if self._has_first_turn:
            return self.peers
        if self._turn is None:
            self._turn = Turn(self.store, replace(self.lease, state="running"), self.renew)
        return self._turn.find_peers()

    def _end_turn(self) -> None:
        """Lets the next run plan. A run that has found work by its first turn keeps it until it is at work."""
        if self._turn is not None:
            self._turn.end()
            self._turn = None
        elif self._has_first_turn and not self.counts.pending and not self.is_over:
            self.renew(replace(self.lease, state="running"))
        self._has_first_turn = self._has_first_turn and self.is_over

    def _is_due(self, book: ShareBook | None = None) -> bool:
        """A look at the lake takes the longer the more it holds. So it is not taken while there is enough to do, or where the
        parts before had nothing to do, unless the next part is as large as all before."""
        rested_s = time.monotonic() - self._planned_at
        if not self._new or rested_s < max(_PART_S, _REST * self._took_s):
            return False
        is_short = book is not None and book.waiting <= book.at_work
        return is_short or self._new >= self.counts.found

    def _plan(self, peers: list[Lease], table: TranscriptTable, *, is_last: bool) -> pa.Table:
        """Plans what was listed since the last part, or the part of which that failed."""
        began = time.monotonic()
        self.others |= dict.fromkeys(peer.run_id for peer in peers)
        if self._part is None:
            self._part, self._new = self.work.close_part(self.findings), 0
        self._find(table, None if is_last and not self._parts else self._part)
        places = self._write(table)  # before it is counted: it may fail
        self._part, self._parts = None, self._parts + 1
        found, so_far = self.work.counts, self.counts
        names = ("found", "skipped", "skipped_failed", "claimed", "pending", "retried")
        sums = {name: getattr(so_far, name) + getattr(found, name) for name in names}
        self.counts = replace(found, **sums)
        self.size_bytes += self.work.sum_pending_bytes()
        self.stats.claimed = self.counts.claimed
        if self._parts > 1 or not is_last:  # else the record of the start has them
            self.stats.objects = {name: sums[name] for name in ("skipped", "claimed", "retried")}
            self.stats.objects |= {"recordings": sums["found"], "erased": found.erased}
        self.is_over, self._planned_at = is_last, time.monotonic()
        self._took_s = self._planned_at - began
        return places

    def _find(self, table: TranscriptTable, part: int | None, *, is_same_run: bool = False) -> None:
        """What of the archive, or of one part of it, has no row yet and is nobody else's."""
        manifests, retry = Manifests(self.config.lake), None if is_same_run else self.retry
        if self._lost is None and not is_same_run:
            self._lost = find_again(self.config, self.fingerprint, retry)
        self.work.refresh(
            lambda: table.committed(self.fingerprint),
            lambda: manifests.find(list(self.others), CLAIMED),
            retry,
            known=table.known,
            lost=None if is_same_run else self._lost,
            is_same_run=is_same_run,
            part=part,
        )
        self.work.leave_out(table.forbidden)
        if is_same_run:
            self.stats.claimed = self.work.counts.claimed

    def _write(self, table: TranscriptTable) -> pa.Table:
        """Puts the work on the lake, where workers take it and other runs see that it is taken; the places of its blocks."""
        manifests = Manifests(self.config.lake)
        parts = (columns.recordings_to_table(block) for block in self.work.blocks())
        schema = pa.schema(columns.RECORDING_COLUMNS)
        places = [place._asdict() for place in manifests.write(self.run_id, parts, schema, self._next_file)]
        if places:
            self._next_file = places[-1]["part"] + 1
        forbidden = table.read_erasures()
        # Erased since it was found: that erasure was over before this manifest was written, and could not blank it.
        if not forbidden.hashes <= table.forbidden.hashes:
            blank_manifests(manifests, forbidden, self.run_id)
        return pa.Table.from_pylist(places, schema=PLACES)


def choose_share(blocks: int) -> int:
    """Blocks in a share, so that the tasks of one pipeline are enough for them: it opens models anew for more."""
    return 1 + blocks // MOST_TASKS
