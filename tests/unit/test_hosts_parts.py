"""What `make hosts` reads in docs/clusters.md, and when it counts as passed; the run itself takes minutes and needs root."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import hosts
from tests.chaos_archive import Verdict
from tests.hosts import choose_newest, passed
from tests.hosts_cluster import PAGE, read_commands

GOOD = Verdict(expected=3, there=3, lost=0, duplicated=0, crashed=0, wrong=())


def test_the_hosts_are_joined_by_the_commands_of_the_page() -> None:
    commands = read_commands(PAGE.read_text(encoding="utf-8"))
    assert commands.token == "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=/run/ray-token"
    assert commands.head.startswith("ray start --head --node-ip-address 10.0.0.1 --port 6379 ")
    assert commands.for_worker("10.0.0.5").startswith("ray start --node-ip-address 10.0.0.5 --address 10.0.0.1:6379")
    assert commands.leave == "ray stop"
    run = commands.for_run("s3://archive/a", "s3://lake/l", Path("/x y.yaml"))
    assert run == "dictalake backfill s3://archive/a s3://lake/l --config '/x y.yaml' --ray.address auto"


@pytest.mark.parametrize(
    ("verdict", "problems", "expected"),
    [
        (GOOD, [], True),
        (None, [], False),
        (GOOD, ["the page's command did not work"], False),
        (Verdict(expected=3, there=2, lost=1, duplicated=0, crashed=0, wrong=()), [], False),
        (Verdict(expected=3, there=3, lost=0, duplicated=1, crashed=0, wrong=()), [], False),
        (Verdict(expected=3, there=3, lost=0, duplicated=0, crashed=1, wrong=()), [], False),
        (Verdict(expected=3, there=3, lost=0, duplicated=0, crashed=0, wrong=("a",)), [], False),
    ],
)
def test_whatever_is_lost_twice_or_wrong_is_no_pass(verdict: Verdict | None, problems: list[str], expected: bool) -> None:
    assert passed(verdict, problems) is expected


def test_a_machine_that_may_not_make_hosts_says_so_and_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hosts, "can_make_hosts", lambda: "unshare failed: Operation not permitted")
    assert hosts.main([]) == 0
    assert capsys.readouterr().out.startswith("skipped: ")


def test_a_recording_that_was_made_again_counts_as_its_last_attempt() -> None:
    rows = [{"recording_id": "a", "attempt": 1}, {"recording_id": "a", "attempt": 0}, {"recording_id": "b", "attempt": 0}]
    assert [(row["recording_id"], row["attempt"]) for row in choose_newest(rows)] == [("a", 1), ("b", 0)]
