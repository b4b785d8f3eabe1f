"""What operators read: the one line of a night, the table of runs, the options of the jobs."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dictalake.cli.options import make_parser
from dictalake.cli.run_options import add_places, add_retry, read_retry
from dictalake.cli.run_summary import describe, show_summary
from dictalake.cli.runs_table import list_runs, show_runs
from dictalake.cli.tables import print_json
from dictalake.errors import ConfigError
from dictalake.lake.claims import Lease, SeenLease
from dictalake.observers.stats import RunStats
from dictalake.workflow.run import RunSummary
from dictalake.workflow.summary import number_summary
from dictalake.workflow.worklist import Retry

NOTHING = RunSummary(
    run_id="r9",
    fingerprint="f1",
    found=10,
    skipped=10,
    skipped_failed=1,
    claimed=0,
    erased=0,
    retried=0,
    others=(),
    archives=0,
    ok=0,
    failed=0,
    audio_s=0.0,
    wall_s=2.0,
    retries=0,
    failures={},
    uncovered={},
    lost={},
)


def test_a_night_with_nothing_to_do_says_nothing() -> None:
    assert describe(NOTHING) == ""


def test_a_night_in_which_nothing_but_links_out_of_the_archive_was_found_says_so() -> None:
    assert "0 transcribed, entries left out: 7 (link_outside 7);" in describe(replace(NOTHING, left_out={"link_outside": 7}))


def test_a_night_is_told_in_one_line() -> None:
    night = replace(NOTHING, skipped=3, claimed=2, others=("r8",), ok=4, failed=1, retried=1, audio_s=7200.0, wall_s=600.0)
    assert describe(replace(night, failures={"not_audio (load)": 1})) == (
        "run r9: 4 transcribed, 1 failed (not_audio (load) 1), 1 of them tried again, 2 left to r8; "
        "2.00 audio hours in 10 min, 3 of 10 objects were done before"
    )


def test_a_night_names_the_recordings_that_lost_sound_the_worst_first() -> None:
    night = replace(NOTHING, skipped=0, ok=10, audio_s=7200.0, wall_s=600.0)
    lost = {"a" * 32: 0.5, "b" * 32: 12.0, "c" * 32: 3.0, "d" * 32: 0.2}
    line = describe(replace(night, lost=lost))
    named = f"({'b' * 32} 12.0 s, {'c' * 32} 3.0 s, {'a' * 32} 0.5 s, …)"
    assert f"10 transcribed, 4 incomplete with 16 s of sound lost {named}; 2.00 audio hours" in line
    assert "incomplete" not in describe(night)


def test_a_run_whose_rows_do_not_show_says_so_with_the_command_that_shows_them() -> None:
    night = replace(NOTHING, ok=4, lake_uri="./my lake")
    output = io.StringIO()
    show_summary(replace(night, standing="experiment"), Console(file=output, width=80))
    assert "since it was not promoted: `dictalake promote './my lake' f1` does" in output.getvalue()
    assert "the view transcripts does not show this fingerprint" in describe(replace(night, standing="experiment"))
    for shown in ("production", "earlier"):
        assert "transcripts" not in describe(replace(night, standing=shown))


def test_the_summary_lists_the_recordings_that_lost_sound_the_worst_first() -> None:
    output = io.StringIO()
    summary = replace(NOTHING, ok=2, lost={"a" * 32: 0.5, "b" * 32: 12.0})
    show_summary(summary, Console(file=output, width=80))
    text = output.getvalue()
    assert "incomplete 2 recordings, 12 s of sound lost" in " ".join(text.split())
    assert text.index("b" * 32) < text.index("a" * 32)
    assert '`dictalake query LAKE "SELECT * FROM incomplete"` shows more about them' in text
    numbers = number_summary(summary)
    assert (numbers["incomplete_recordings"], numbers["lost_s"]) == (2, 12.5)
    assert "a" * 32 not in str(numbers)


def test_the_summary_names_its_lake_in_the_command_that_shows_more() -> None:
    output = io.StringIO()
    place = "gs://a-hospital/with a long name/" + "speech/" * 12
    show_summary(replace(NOTHING, lost={"a" * 32: 0.5}, lake_uri=place), Console(file=output, width=80))
    assert f"`dictalake query '{place}' \"SELECT * FROM incomplete\"` shows more about them\n" in output.getvalue()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], None),
        (["--retry-failed"], Retry()),
        (["--retry-failed", "not_audio,too_long"], Retry(("not_audio", "too_long"))),
        (["--retry", "lost"], Retry(failed=False, lost=True)),
        (["--retry", "lost", "--retry-failed"], Retry(lost=True)),
    ],
)
def test_retries_are_asked_for_with_or_without_reasons(given: list[str], expected: Retry | None) -> None:
    parser = make_parser("backfill", "")
    add_retry(parser)
    arguments = parser.parse([*given, "--lake.uri", "x"])
    assert read_retry(arguments) == expected
    assert arguments.overrides == [("lake.uri", "x")]


def test_an_unknown_reason_is_refused() -> None:
    parser = make_parser("nightly", "")
    add_retry(parser)
    arguments = parser.parse(["--retry-failed=not_a_reason"])
    with pytest.raises(ConfigError, match="--retry-failed not_a_reason: no such reason; there are access_denied"):
        read_retry(arguments)


@pytest.mark.parametrize("place", ["./aa", "gs://bucket/aa", "~", "aa", "embedded:demo-archive"])
def test_a_place_that_was_taken_for_a_reason_is_called_one(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "aa").mkdir()
    monkeypatch.chdir(tmp_path)
    parser = make_parser("nightly", "")
    add_places(parser)
    add_retry(parser)
    arguments = parser.parse(["--retry-failed", place, "./ll"])
    with pytest.raises(ConfigError, match=f"--retry-failed {place}: this is a place, not a reason; put --retry-failed after"):
        read_retry(arguments)


def record(run_id: str, event: str, hour: int, **changes: Any) -> dict[str, Any]:
    names = ("job", "host", "fingerprint", "recordings", "skipped", "claimed", "ok", "failed", "audio_hours", "wall_s")
    return {"run_id": run_id, "event": event, "at": datetime(2026, 3, 1, hour, tzinfo=UTC), **dict.fromkeys(names), **changes}


def test_runs_are_listed_with_what_became_of_them() -> None:
    records = [
        record("done", "started", 1, recordings=9, skipped=2, claimed=1, job="nightly"),
        record("done", "finished", 2, ok=7, failed=1, wall_s=60.0),  # of an archive object with three files
        record("killed", "started", 3, recordings=4, skipped=0, claimed=0, job="backfill"),
        record("alive", "started", 4, recordings=4, skipped=0, claimed=0, job="backfill"),
    ]
    alive = Lease("alive", "backfill", "f1", "2026-03-01T04:00:00+00:00", "running", wanted=30, ok=2)
    claims = [SeenLease(alive, 12.0, True), SeenLease(replace(alive, run_id="asleep", state="planning"), 500.0, False)]
    runs = list_runs(records, claims)
    assert [(run["run_id"], run["state"], run["objects"], run["recordings"]) for run in runs] == [
        ("done", "finished", 9, 8),
        ("killed", "died", 4, None),
        ("alive", "running", 4, 30),
        ("asleep", "died", None, 30),
    ]
    output = io.StringIO()
    show_runs(runs, Console(file=output, width=200))
    assert "12 s ago" in output.getvalue()
    assert output.getvalue().splitlines()[1].endswith("objects  recordings  transcribed  failed  audio hours")


def test_the_same_run_has_the_same_counts_in_the_bar_the_summary_and_the_table_of_runs() -> None:
    """Three objects in the archive, of which one is a ZIP of four files."""
    stats = RunStats()
    stats.expect(3, {})
    stats.count_archives([("zip", 4)] * 4)
    stats.ok, stats.failed = 5, 1
    lease = stats.put_into(Lease("r9", "backfill", "f1", "2026-03-01T04:00:00+00:00", "running"))
    (live,) = list_runs([record("r9", "started", 1, recordings=3)], [SeenLease(lease, 1.0, True)])
    (ended,) = list_runs([record("r9", "started", 1, recordings=3), record("r9", "finished", 2, ok=5, failed=1)], [])
    summary = replace(NOTHING, found=3, skipped=0, ok=5, failed=1)
    assert stats.describe().startswith("6 of 6 recordings done, 1 failed")
    for run in (live, ended):
        counts = [run[name] for name in ("objects", "recordings", "transcribed", "failed")]
        assert counts == [getattr(summary, name) for name in ("objects", "recordings", "ok", "failed")]
        assert counts == [3, 6, 5, 1]


def test_the_runs_in_json_have_the_same_keys_and_times_of_the_standard_form(capsys: pytest.CaptureFixture[str]) -> None:
    records = [record("done", "started", 1), record("done", "finished", 2, ok=7, failed=1, wall_s=60.0)]
    lease = Lease("alive", "backfill", "f1", "2026-03-01T04:00:00+00:00", "running", wanted=30, ok=2)
    print_json(list_runs(records, [SeenLease(lease, 12.04, True)]))
    done, alive = json.loads(capsys.readouterr().out)
    assert list(done) == list(alive)
    assert (done["started"], alive["started"]) == ("2026-03-01T01:00:00+00:00", "2026-03-01T04:00:00+00:00")
    assert (done["last_sign_s"], alive["last_sign_s"]) == (None, 12.0)
    assert (done["took_s"], alive["took_s"]) == (60.0, None)
    assert (done["transcribed"], alive["transcribed"]) == (7, 2)
