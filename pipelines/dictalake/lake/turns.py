"""Turns of runs that are at work already and plan more: a run whose listing goes on plans it part by part.

A part is planned as all of the work is (``LeaseStore.await_peers``): when it is this run's turn, and when it is certain which
other runs are alive. So two runs never find the same work. Whoever is at work does not stand and wait: ``find_peers`` is
asked now and then. The lease stays ``running`` meanwhile, since others leave alone what this run has in its manifest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from dictalake.lake.claims import CHOOSING, Lease, LeaseStore, must_wait_for

_LOOK_EVERY_S = 1.0


class Turn:
    """Takes a ticket for the run with the lease ``mine``. ``renew`` writes it. The methods raise RunError."""

    def __init__(self, store: LeaseStore, mine: Lease, renew: Callable[[Lease], None]) -> None:
        # Others must not take the turn while this run looks at their tickets and has none yet.
        renew(replace(mine, ticket=CHOOSING))
        self._store, self._renew = store, renew
        self._mine = store.take_ticket(mine, renew)
        self._first_seen: dict[str, Lease] = {}
        self._looked_at = -_LOOK_EVERY_S

    def find_peers(self) -> list[Lease] | None:
        """The leases of the other runs of the fingerprint that are at work; None while it is not this run's turn."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_EVERY_S:
            return None
        self._looked_at = now
        peers = self._store.read_peers(self._mine)
        if any(must_wait_for(peer, self._first_seen.setdefault(peer.run_id, peer), self._mine) for peer in peers):
            return None
        return [peer for peer in peers if peer.state == "running"]

    def end(self) -> None:
        """Gives the turn to the next run, once the manifest is written."""
        self._renew(replace(self._mine, ticket=0))
