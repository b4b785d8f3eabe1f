"""Which runner has which share of a run's work, and what of it was reported: the driver's book. No Ray in here.

A share is a few blocks of the manifest. A runner that dies gives its unfinished shares back. What it had reported of them is
noted with them: those files will be committed, so the next runner leaves their recordings out.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pyarrow as pa


@dataclass(frozen=True)
class Reported:
    """What of a share is done: the ids of recordings of their own, and for archive objects those of their finished rows.

    ``rows_wanted`` says how many rows an archive object makes in all.
    """

    recordings: frozenset[str] = frozenset()
    members: dict[str, tuple[str, ...]] = field(default_factory=dict)
    rows_wanted: dict[str, int] = field(default_factory=dict)

    def add(self, rows: Iterable[tuple[str, str | None, int | None]]) -> Reported:
        """With ``(recording_id, archive_id, archive_rows)`` of more rows."""
        recordings, members, wanted = set(self.recordings), defaultdict(tuple, self.members), dict(self.rows_wanted)
        for recording_id, archive_id, archive_rows in rows:
            if archive_id is None:
                recordings.add(recording_id)
            else:
                members[archive_id] = (*members[archive_id], recording_id)
                wanted[archive_id] = archive_rows or 0
        return Reported(frozenset(recordings), dict(members), wanted)

    def leave_out(self, block: pa.Table) -> pa.Table:
        """``block`` less what is done; archive objects of which a part is done go on with the rest."""
        if not self.recordings and not self.members:
            return block
        rest = []
        for row in block.to_pylist():
            name = row["recording_id"]
            if name in self.recordings:
                continue
            if name in self.members:
                done = sorted({*(row["done_members"] or ()), *self.members[name]})
                if len(done) >= self.rows_wanted[name]:
                    continue
                row |= {"done_members": done, "archive_id": name}  # as worklist marks an archive object that is partly done
            rest.append(row)
        return pa.Table.from_pylist(rest, schema=block.schema)


@dataclass(frozen=True)
class Share:
    """Number ``number`` of a run's shares: the places of its blocks (as ``Manifests.write`` gave them), and what is done."""

    number: int
    places: pa.Table
    reported: Reported = Reported()


class ShareBook:
    """Hands out the blocks at ``places`` in shares of ``blocks_per_share``, in order; those that came back come first.

    A book that is not closed gets more by ``add``. One thread adds and closes, another does all the rest: each of the fields
    below has one writer.
    """

    def __init__(self, places: pa.Table | None = None, blocks_per_share: int = 1, *, is_closed: bool = True) -> None:
        self._added: deque[tuple[int, int, pa.Table]] = deque()  # number of the first share, blocks a share, places
        self._count = 0
        if places is not None:
            self.add(places, blocks_per_share)
        self.is_closed = is_closed
        self._next = 0
        self._returned: deque[Share] = deque()
        self._given: dict[str, dict[int, Share]] = defaultdict(dict)  # runner → number → share
        self.completed = 0
        self.returned = Counter[str]()  # runner → shares that it gave back

    def add(self, places: pa.Table, blocks_per_share: int = 1) -> None:
        """More blocks."""
        if places.num_rows:
            self._added.append((self._count, blocks_per_share, places))
            self._count += -(-places.num_rows // blocks_per_share)

    def close(self) -> None:
        """There will be no more."""
        self.is_closed = True

    def __len__(self) -> int:
        """How many shares there are in all, so far."""
        return self._count

    @property
    def waiting(self) -> int:
        """Shares that no runner has."""
        return len(self._returned) + self._count - self._next

    @property
    def at_work(self) -> int:
        """Shares that runners have and have not finished."""
        return self._next - len(self._returned) - self.completed

    @property
    def is_draining(self) -> bool:
        """Whether no runner gets another share, unless one gives its own back."""
        return self.is_closed and self.waiting == 0  # in this order: what was added before it was closed is seen

    @property
    def is_over(self) -> bool:
        return self.is_closed and self.completed == self._count

    def outstanding(self, runner: str) -> int:
        """Shares that ``runner`` has and has not finished."""
        return len(self._given[runner])

    def take(self, runner: str, most: int) -> list[Share]:
        """The next shares for ``runner``, at most so many."""
        shares: list[Share] = []
        while self.waiting and len(shares) < most:
            share = self._returned.popleft() if self._returned else self._cut()
            self._given[runner][share.number] = share
            shares.append(share)
        return shares

    def _cut(self) -> Share:
        """The next share that nobody has had."""
        first, step, places = self._added[0]
        share = Share(self._next, places.slice((self._next - first) * step, step))
        self._next += 1
        if (self._next - first) * step >= places.num_rows:
            self._added.popleft()
        return share

    def note(self, runner: str, number: int, rows: Iterable[tuple[str, str | None, int | None]]) -> None:
        """Takes in what ``runner`` has reported of a share: ``(recording_id, archive_id, archive_rows)`` of each row."""
        if (share := self._given[runner].get(number)) is not None:
            self._given[runner][number] = replace(share, reported=share.reported.add(rows))

    def complete(self, runner: str, number: int) -> None:
        """``runner`` has reported all of this share."""
        if self._given[runner].pop(number, None) is not None:
            self.completed += 1

    def give_back(self, runner: str) -> int:
        """``runner`` is gone: others get its unfinished shares. Returns how many that are."""
        shares: dict[int, Share] = self._given.pop(runner, {})
        self._returned.extend(shares.values())
        return len(shares)
