"""What fails after the last part of an archive was planned."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from dictalake.config.sections import Config
from dictalake.errors import RunError
from dictalake.records import Recording
from dictalake.workflow.planning import Planning
from dictalake.workflow.shares import ShareBook
from tests.unit.workflow.test_planning import config as config
from tests.unit.workflow.test_planning import plan, plan_rest
from tests.unit.workflow.test_worklist import make


def test_what_fails_once_all_is_planned_ends_the_run_and_leaves_no_part_that_nobody_works_on(config: Config) -> None:
    has_begun = threading.Event()

    def scan() -> Iterator[Recording]:
        yield make("a")
        assert has_begun.wait(60)
        yield make("b")

    def refuse(made: Planning) -> None:
        raise RunError("cannot read the lake")

    with plan(config, scan, on_planned=refuse) as made:
        book = ShareBook(made.plan_first(), is_closed=False)
        has_begun.set()
        made.listing._thread.join()  # so the next part is the last one
        with pytest.raises(RunError, match="cannot read the lake"):
            plan_rest(made, book)
