"""Runs that plan their archives beside each other, and a storage that fails while a part is planned."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from dictalake.config.sections import Config
from dictalake.errors import RunError
from dictalake.lake.claims import LeaseStore, make_lease
from dictalake.lake.manifests import Manifests
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.records import Recording
from dictalake.workflow.shares import ShareBook
from dictalake.workflow.worklist import Counts
from tests.lake_rows import make_row
from tests.unit.workflow.test_planning import config as config
from tests.unit.workflow.test_planning import count_to, make_block, plan, plan_rest, read_manifest
from tests.unit.workflow.test_worklist import make


def test_a_run_that_finds_nothing_new_lets_another_one_plan_before_its_listing_is_over(config: Config) -> None:
    TranscriptTable(config.lake).commit(write_staged(make_transcripts([make_row("a", fingerprint="f1")]), config.lake))
    has_looked, has_turn, has_planned, is_over = (threading.Event() for _ in range(4))
    store, seen_of_first = LeaseStore(config.lake), list[list[str]]()

    def scan() -> Iterator[Recording]:
        yield make("a")
        assert has_turn.wait(60), "the other run waits for the end of this listing"
        yield from (make("b"), make("c"))

    def plan_second() -> None:
        lease = make_lease("r2", "nightly", "f1")
        with store.hold(lease, lambda lease: lease) as renew:
            store.await_peers(lease, renew, check=count_to(2, has_looked))
            has_turn.set()
            while not any(seen.lease.run_id == "r1" and seen.lease.ticket < 0 for seen in store.read()):
                pass  # until the first one asks for its turn
            seen_of_first.append(read_manifest(config))
            list(Manifests(config.lake).write("r2", [make_block("b")], make_block("b").schema))
            has_planned.set()
            while not is_over.wait(0.01):
                renew(replace(lease, state="running"))  # it is alive

    with plan(config, scan) as made:
        second = threading.Thread(target=plan_second, daemon=True)
        second.start()
        assert has_looked.wait(60)
        made.plan_first()
        assert has_planned.is_set(), "two runs have planned at the same time"
        is_over.set()
        second.join()
    assert (seen_of_first, read_manifest(config)) == ([[]], ["c"])
    assert (made.counts.skipped, made.counts.claimed, made.counts.pending, list(made.others)) == (1, 1, 1, ["r2"])


@pytest.mark.parametrize("fails", [(TranscriptTable, "committed"), (Manifests, "write")], ids=["reading", "writing"])
@pytest.mark.parametrize("comes_back", [True, False])
def test_a_part_that_the_storage_does_not_let_it_plan_is_planned_again(
    config: Config, monkeypatch: pytest.MonkeyPatch, fails: tuple[type, str], comes_back: bool
) -> None:
    has_begun, tries, works = threading.Event(), count(1), getattr(*fails)

    def scan() -> Iterator[Recording]:
        yield make("a")
        assert has_begun.wait(60)
        yield make("b")

    def fail_at_first(*arguments: Any, **options: Any) -> Any:
        if comes_back and next(tries) > 3:
            return works(*arguments, **options)
        raise RunError("the storage does not answer")

    with plan(config, scan) as made:
        book = ShareBook(made.plan_first(), is_closed=False)
        monkeypatch.setattr(*fails, fail_at_first)
        if not comes_back:
            monkeypatch.setattr(made.store, "_lease_s", 0.0)
        has_begun.set()
        with nullcontext() if comes_back else pytest.raises(RunError, match="the storage does not answer"):
            plan_rest(made, book)
        assert read_manifest(config) == (["a", "b"] if comes_back else ["a"])
        assert made.counts == (Counts(found=2, pending=2) if comes_back else Counts(found=1, pending=1))
        assert book.is_closed is comes_back
