"""Any nights of a lake, in any order, give the views that a model of it predicts (``tests/truth_machine.py``)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.truth_machine import FINGERPRINTS, URIS, Nights, Together

uris, fingerprints = st.sampled_from(URIS), st.sampled_from(FINGERPRINTS)
perhaps = st.one_of(st.just(""), uris)


class NightsOfViews(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.nights = Nights(Path(tempfile.mkdtemp(prefix="truth-")))

    def teardown(self) -> None:
        self.nights.close()

    @rule(uri=uris)
    def arrives_or_is_replaced(self, uri: str) -> None:
        self.nights.arrive(uri)

    @rule(uri=uris)
    def vanishes(self, uri: str) -> None:
        self.nights.vanish(uri)

    @rule(fingerprint=fingerprints, bad=perhaps, gone=perhaps, is_killed=st.booleans(), beside=st.booleans())
    def night(self, fingerprint: str, bad: str, gone: str, is_killed: bool, beside: bool) -> None:
        self.nights.run(fingerprint, bad=bad, gone=gone, is_killed=is_killed, beside=beside)

    @rule(fingerprint=fingerprints, some=st.lists(uris, min_size=1, max_size=2))
    def experiment(self, fingerprint: str, some: list[str]) -> None:
        self.nights.run(fingerprint, some)

    @rule(fingerprint=fingerprints)
    def promotion(self, fingerprint: str) -> None:
        self.nights.promote(fingerprint)

    @rule(uri=uris)
    def erasure(self, uri: str) -> None:
        self.nights.erase(uri)

    @invariant()
    def views_are_as_the_model_says(self) -> None:
        self.nights.check()


def test_any_nights_give_the_views_that_a_model_predicts() -> None:
    settings_of_suite = settings(
        max_examples=3, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
    )
    run_state_machine_as_test(NightsOfViews, settings=settings_of_suite)


@pytest.mark.parametrize("together", ["leased", "asleep"])
def test_two_runs_at_once_write_each_row_once(together: Together, tmp_path: Path) -> None:
    """The first night all is new, in the second one recording is tried again and one was replaced."""
    nights = Nights(tmp_path)
    for uri in URIS:
        nights.arrive(uri)
    nights.run(FINGERPRINTS[0], bad=URIS[0], together=together)
    nights.arrive(URIS[1])
    nights.run(FINGERPRINTS[0], together=together)
    nights.check()
