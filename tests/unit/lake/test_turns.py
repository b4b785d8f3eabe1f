"""A run at work that plans more takes its turn among the others, and holds nobody up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dictalake.config.sections import Lake
from dictalake.lake import turns
from dictalake.lake.claims import CHOOSING, Lease, LeaseStore, make_lease
from dictalake.lake.turns import Turn


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LeaseStore:
    monkeypatch.setattr(turns, "_LOOK_EVERY_S", 0.0)
    return LeaseStore(Lake.model_validate({"uri": str(tmp_path / "lake"), "lease_s": 3600.0}))


def at_work(run_id: str, **changes: Any) -> Lease:
    given: dict[str, Any] = {"state": "running", **changes}
    return replace(make_lease(run_id, "backfill", "f1"), **given)


def test_a_run_alone_has_its_turn_at_once_and_gives_it_back(store: LeaseStore) -> None:
    tickets: list[int] = []
    turn = Turn(store, at_work("r1"), lambda lease: tickets.append(lease.ticket))
    assert turn.find_peers() == []
    turn.end()
    assert tickets == [CHOOSING, -2, 0]


@pytest.mark.parametrize(
    "other", [{"state": "planning", "ticket": 0}, {"state": "planning", "ticket": 1}, {"ticket": CHOOSING}]
)
def test_whoever_plans_or_chooses_before_is_waited_for_and_then_its_manifest_counts(
    store: LeaseStore, other: dict[str, Any]
) -> None:
    store.write(at_work("r2", **other))
    turn = Turn(store, at_work("r3"), store.write)
    store.write(at_work("r2", beats=1, **other))
    assert [turn.find_peers(), turn.find_peers()] == [None, None]
    store.write(at_work("r2", beats=2))
    assert [peer.run_id for peer in turn.find_peers() or ()] == ["r2"]


def test_one_that_plans_later_is_not_waited_for_and_waits_itself(store: LeaseStore) -> None:
    mine = at_work("r1")
    store.write(mine)
    first = Turn(store, mine, store.write)
    second = Turn(store, at_work("r2"), store.write)
    assert second.find_peers() is None
    store.write(at_work("r2", beats=1, ticket=-3))
    assert first.find_peers() is None  # it has only now seen that the other is alive
    store.write(at_work("r2", beats=2, ticket=-3))
    assert [peer.run_id for peer in first.find_peers() or ()] == ["r2"]
    first.end()
    store.write(at_work("r1", beats=1))
    assert [peer.run_id for peer in second.find_peers() or ()] == ["r1"]


def test_a_run_that_begins_waits_for_one_at_work_that_plans_more(store: LeaseStore) -> None:
    store.write(at_work("r1", ticket=-2))
    looks: list[int] = []

    def look() -> None:
        looks.append(len(looks))
        store.write(at_work("r1", beats=len(looks), ticket=-2 if len(looks) < 3 else 0))

    (peer,) = store.await_peers(make_lease("r2", "backfill", "f1"), store.write, check=look)
    assert (peer.run_id, peer.ticket, len(looks)) == ("r1", 0, 3)
