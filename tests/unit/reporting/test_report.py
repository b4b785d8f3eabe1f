"""``dictalake report``: its numbers are those of the lake, its page shows them as text, and what is erased leaves it."""

from __future__ import annotations

import re
import stat
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dictalake.cli.main import run_command
from dictalake.config.sections import Config, Lake
from dictalake.errors import ConfigError
from dictalake.lake.erase import Subjects, forget
from dictalake.lake.erasers import clear_reports
from dictalake.lake.rechecks import Recheck, RecheckLog
from dictalake.lake.reports import Reports
from dictalake.lake.runs import RunLog, RunRecord, describe_config
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.reporting.model import Attempt, Failure, Incomplete, Part, Price, Slice
from dictalake.reporting.page import format_seconds, format_share, render_report
from dictalake.reporting.queries import read_report, write_report
from tests.lake_rows import make_failed_row, make_row

START = datetime(2026, 3, 2, 1, 30, tzinfo=UTC)
GREEDY, BEAM = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
SCRIPT = "<script>document.title = 'ran'</script> no acute fracture"


def make(name: str, run: str, fingerprint: str, at_s: float, **changes: Any) -> dict[str, Any]:
    """A row made ``at_s`` seconds after START; ``load_s``, ``uncovered_s`` and ``duration_s`` can be given by themselves."""
    provenance = {"run_id": run, "fingerprint": fingerprint, "model_id": "mini", "model_sha256": "5" * 64, "decoder": "beam 8"}
    timings = {"load_ms": 1000 * changes.pop("load_s", 1.0), "emit_ms": 2000.0, "decode_ms": 500.0}
    sound = {"duration_s": changes.pop("duration_s", 60.0), "speech_s": 40.0}
    row = make_row(
        name,
        run_id=run,
        fingerprint=fingerprint,
        provenance={**provenance, "transcribed_at": START + timedelta(seconds=at_s), "versions": [("torch", "2.13.0")]},
        timings=timings,
        quality={
            **sound,
            "uncovered_speech_s": changes.pop("uncovered_s", 0.0),
            "lost_s": changes.pop("lost_s", 0.0),
            "repairs": changes.pop("repairs", []),
        },
    )
    return {**row, **changes}


def fail(name: str, run: str, fingerprint: str, at_s: float, **error: Any) -> dict[str, Any]:
    wrong = {"stage": "load", "reason": "not_audio", "detail": "text", "retryable": False, **error}
    provenance = {"run_id": run, "fingerprint": fingerprint, "transcribed_at": START + timedelta(seconds=at_s)}
    return make_failed_row(name, run_id=run, fingerprint=fingerprint, error=wrong, provenance=provenance)


def commit(lake: Lake, rows: Iterable[dict[str, Any]]) -> None:
    TranscriptTable(lake).commit(write_staged(make_transcripts(list(rows)), lake))


def log_run(
    lake: Lake, run: str, fingerprint: str, at_s: float, wall_s: float | None, event: str = "finished", **counts: Any
) -> None:
    """A run in the lake's records; without ``wall_s`` one that was killed."""
    at = START + timedelta(seconds=at_s)
    config = Config.model_validate({"archive": {"uri": "gs://secret/archive"}, "decoding": {"beam_width": 12}})
    text, config_hash = describe_config(config)
    given = {"fingerprint": fingerprint, "job": "backfill", "config": text, "config_hash": config_hash, "recordings": 9}
    RunLog(lake).append(RunRecord(run_id=run, event="started", at=at, host="node-1", cpus=16.0, gpus=1.0, skipped=2, **given))
    if wall_s is not None:
        end = {"wall_s": wall_s, "audio_hours": 0.1, "speed": 12.0, **counts}
        RunLog(lake).append(RunRecord(run_id=run, event=event, at=at + timedelta(seconds=wall_s), **end))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Two runs under two fingerprints, and a third that found nothing: ``e`` failed under the first and was transcribed by the
    second, ``f`` failed twice under the second, ``g`` never was heard by anybody."""
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    first = [make(name, "r1", GREEDY, 5, confidence=0.25) for name in "abcd"]
    commit(lake, [*first, fail("e", "r1", GREEDY, 6, reason="fetch_failed", retryable=True), fail("g", "r1", GREEDY, 6)])
    second = [
        make("a", "r2", BEAM, 110, confidence=0.96, load_s=9.0),
        make("b", "r2", BEAM, 110, confidence=0.96, uncovered_s=3.5, text=SCRIPT),
        make("c", "r2", BEAM, 170, confidence=0.52, duration_s=700.0, uncovered_s=12.0, text="EXAM TYPE: CT"),
        make("e", "r2", BEAM, 170, confidence=None),
        fail("f", "r2", BEAM, 171, reason="corrupt_audio"),
        {**fail("f", "r2", BEAM, 172, reason="corrupt_audio"), "attempt": 1},
        fail("g", "r2", BEAM, 172),
    ]
    commit(lake, second)
    log_run(lake, "r1", GREEDY, 0, 10.0, ok=4, failed=2)
    log_run(lake, "r2", BEAM, 100, 120.0, ok=4, failed=3)
    log_run(lake, "r3", BEAM, 500, 1.0, ok=0, failed=0)
    return lake


def read_run(lake: Lake, run: str) -> Part:
    [part] = read_report(lake, run_id=run).parts
    return part


def test_a_run_is_told_by_its_own_rows(lake: Lake) -> None:
    part = read_run(lake, "r2")
    counts = part.counts
    assert (counts.ok, counts.failed, counts.audio_s, counts.speech_s) == (4, 3, 880.0, 160.0)
    assert (counts.uncovered, counts.uncovered_s) == (2, 15.5)
    assert counts.confidence == pytest.approx((0.96 + 0.96 + 0.52) / 3)
    assert part.failures == [Failure("corrupt_audio", "load", 2, False), Failure("not_audio", "load", 1, False)]
    assert part.attempts == [Attempt(0, 4, 2), Attempt(1, 0, 1)]
    assert part.run is not None
    assert (part.run.state, part.run.wanted, part.run.skipped, part.run.wall_s) == ("finished", 9, 2, 120.0)


def test_the_slowest_and_the_least_covered_come_first(lake: Lake) -> None:
    part = read_run(lake, "r2")
    assert [(one.recording_id, one.total_s) for one in part.slowest] == [("a", 11.5), ("b", 3.5), ("c", 3.5), ("e", 3.5)]
    assert [(one.recording_id, one.uncovered_s, one.words) for one in part.least_covered] == [
        ("c", 12.0, None),
        ("b", 3.5, None),
    ]


def test_recordings_that_lost_sound_are_named_the_worst_first(lake: Lake) -> None:
    rows = [make("x", "r4", BEAM, 610), make("b", "r4", BEAM, 610, lost_s=1.5, repairs=["hole"], attempt=1)]
    commit(lake, [*rows, make("c", "r4", BEAM, 610, duration_s=700.0, lost_s=21.0, attempt=1)])
    log_run(lake, "r4", BEAM, 600, 20.0, ok=3, failed=0)
    part = read_run(lake, "r4")
    assert part.incomplete == [Incomplete("c", 21.0, 700.0, ()), Incomplete("b", 1.5, 60.0, ["hole"])]
    assert (part.counts.incomplete, part.counts.lost_s) == (2, 22.5)
    assert (read_run(lake, "r1").incomplete, read_run(lake, "r1").counts.lost_s) == ([], 0.0)
    page = render_report(read_report(lake, run_id="r4"))
    assert "22 s of 2 recordings" in page
    assert page.index("21 s</td><td>3.0 %</td>") < page.index(
        '1.50 s</td><td>2.5 %</td><td>60 s</td><td class="text">hole</td>'
    )


def test_of_the_whole_lake_also_what_a_recheck_found_is_incomplete(lake: Lake) -> None:
    record: dict[str, Any] = {
        "recording_id": "e",
        "fingerprint": BEAM,
        "attempt": 0,
        "loader": 2,
        "at": START,
        "duration_s": 90.0,
    }
    RecheckLog(lake).append([Recheck(**record, verdict="lost", missing_s=30.0)])
    whole = read_report(lake).parts[-1]
    assert whole.incomplete == [Incomplete("e", 30.0, 90.0, ())]
    assert (whole.counts.incomplete, whole.counts.lost_s) == (1, 30.0)


def test_speed_is_cut_evenly_from_the_start_of_the_run_to_its_end(lake: Lake) -> None:
    slices = read_run(lake, "r2").slices
    assert (len(slices), slices[0].start, slices[0].width_s) == (48, START + timedelta(seconds=100), 2.5)
    busy = [one for one in slices if one.ok or one.failed]
    at = [START + timedelta(seconds=s) for s in (110, 170)]
    assert busy == [Slice(at[0], 2.5, 120.0, 2, 0), Slice(at[1], 2.5, 760.0, 2, 3)]


def test_runs_that_failed_since_are_the_first_thing_to_read(lake: Lake) -> None:
    log_run(lake, "r4", BEAM, 600, None)
    log_run(lake, "r5", BEAM, 700, 1.0, event="failed", ok=0, failed=0)
    log_run(lake, "r6", BEAM, 800, 1.0, event="stopped", ok=0, failed=0)
    report = read_report(lake)
    assert ([run.run_id for run in report.broken_runs], report.idle_runs) == (["r6", "r5", "r4"], 1)
    page = render_report(report)
    warnings = re.findall(r'<p class="warning">(.*?)</p>', page)
    assert [re.sub("<[^>]+>", "", line) for line in warnings] == [
        "backfill r6 of 2026-03-02 01:43 was stopped and wrote no rows.",
        "backfill r5 of 2026-03-02 01:41 failed and wrote no rows.",
        "backfill r4 of 2026-03-02 01:40 has written no rows and recorded no end: it is still at work or was killed, "
        "dictalake runs says which.",
    ]
    assert "1 later run found nothing to do." in page


def test_a_run_whose_rows_are_gone_says_how_many_it_wrote(lake: Lake) -> None:
    log_run(lake, "r6", BEAM, 800, 3600.0, ok=9, failed=1)  # of an hour, for 0.1 audio hours
    page = render_report(read_report(lake, Price(10.0, "USD"), "r6"))
    assert "10 rows written, 0 are left" in page
    assert "100.00 USD an audio hour" in page
    assert "rows written" not in render_report(read_report(lake, run_id="r2"))


def test_histograms_count_every_transcript_once(lake: Lake) -> None:
    part = read_run(lake, "r2")
    assert [(bar.low, bar.count) for bar in part.confidences if bar.count] == [(0.5, 1), (0.95, 2)]
    assert [(bar.low, bar.high, bar.count) for bar in part.durations if bar.count] == [(60.0, 120.0, 3), (600.0, 1800.0, 1)]


def test_stages_say_what_their_workers_took(lake: Lake) -> None:
    load, emit, decode = read_run(lake, "r2").stages
    assert [(stage.name, stage.total_s) for stage in (load, emit, decode)] == [("load", 12.0), ("emit", 8.0), ("decode", 2.0)]
    assert (load.median_s, load.audio_s) == (1.0, 880.0)
    assert 1.0 < load.p95_s < 9.0


def test_of_the_lake_the_newest_good_transcript_counts(lake: Lake) -> None:
    report = read_report(lake)
    assert [part.run and part.run.run_id for part in report.parts] == ["r2", None]
    assert ([run.run_id for run in report.later_runs], report.idle_runs, report.broken_runs) == (["r3"], 1, [])
    whole = report.parts[1]
    assert (whole.counts.ok, whole.counts.failed) == (5, 2)  # e was heard by the second run
    assert (whole.counts.first_at, whole.counts.last_at) == (START + timedelta(seconds=5), START + timedelta(seconds=172))
    assert whole.failures == [Failure("corrupt_audio", "load", 1, False), Failure("not_audio", "load", 1, False)]
    assert [(bar.low, bar.count) for bar in whole.confidences if bar.count] == [(0.25, 1), (0.5, 1), (0.95, 2)]
    assert sum(one.ok for one in whole.slices) == 8  # every row, by the clock
    assert [run.run_id for run in whole.runs] == ["r3", "r2", "r1"]
    assert [(maker.fingerprint, maker.model_id, maker.rows) for maker in whole.provenances if maker.model_id] == [
        (GREEDY, "mini", 4),
        (BEAM, "mini", 4),
    ]


def test_a_killed_run_is_told_from_its_rows(lake: Lake) -> None:
    commit(lake, [make("h", "r4", BEAM, 605)])
    log_run(lake, "r4", BEAM, 600, None)
    report = read_report(lake)
    assert report.parts[0].run is not None
    assert (report.parts[0].run.run_id, report.parts[0].run.state, report.parts[0].counts.ok) == ("r4", "unfinished", 1)
    assert "was killed" in render_report(report)


def test_a_lake_without_rows_has_a_page(tmp_path: Path) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    TranscriptTable(lake)
    log_run(lake, "r1", BEAM, 0, 1.0, ok=0, failed=0)
    page = render_report(read_report(lake))
    assert "The whole lake" in page
    assert "<svg" not in page


def test_an_unknown_run_is_refused_with_those_that_there_are(lake: Lake) -> None:
    with pytest.raises(ConfigError, match="--run r9: the lake has no such run; the newest are r3, r2, r1"):
        read_report(lake, run_id="r9")


def test_text_is_shown_only_when_asked_for_and_then_as_text(lake: Lake) -> None:
    without = render_report(read_report(lake))
    assert "acute fracture" not in without
    assert "Patient data" not in without
    page = render_report(read_report(lake, with_text=True))
    assert "&lt;script&gt;document.title" in page
    assert "<script" not in page
    assert "Patient data" in page


def test_where_the_archive_lies_is_not_in_the_page(lake: Lake) -> None:
    page = render_report(read_report(lake, with_text=True))
    assert "beam_width" in page  # settings are
    for secret in ("gs://", "secret", ".wav"):
        assert secret not in page


def test_cost_is_shown_only_for_a_price_which_is_said(lake: Lake) -> None:
    assert "Cost" not in render_report(read_report(lake, run_id="r2"))
    page = render_report(read_report(lake, Price(36.0, "EUR"), "r2"))
    assert "1.20 EUR" in page  # 120 s
    assert "report.price_per_hour = 36.00 EUR" in page


class _Page(HTMLParser):
    """What is in a page: tags that are open, ids, addresses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids.update([found["id"]] if found.get("id") else [])
        self.links += [str(found[name]) for name in ("src", "href", "xlink:href") if name in found]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "br"):
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(lake: Lake) -> None:
    text = render_report(read_report(lake, Price(1.0, "USD"), with_text=True))
    page = _Page(text)
    assert page.open == []
    assert page.ids.most_common(1)[0][1] == 1  # also across pictures
    links = page.links + re.findall(r"url\(([^)]*)\)", text)
    assert links  # pictures use shapes of their own
    assert all(link.startswith("#") for link in links)
    assert "@import" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.0, "0.00 s"), (0.042, "42 ms"), (4.2, "4.20 s"), (89.6, "90 s"), (420, "7 min"), (11_100, "3 h 5 min")],
)
def test_seconds_are_told_as_people_say_them(seconds: float | None, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"), [(1, 3, "33 %"), (1, 300, "0.3 %"), (0, 3, "0 %"), (1, 0, "–"), (None, 1, "–")]
)
def test_shares_are_percent(part: float | None, whole: float, text: str) -> None:
    assert format_share(part, whole) == text


def test_the_command_writes_a_page_for_its_owner_alone(lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.html"
    assert run_command("report", ["--lake.uri", str(lake.uri), "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: r2, the whole lake; ")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert "Run r2" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("out", "complaint"),
    [
        ([], "--out is missing"),
        (["--out", "report.txt"], "must end in .html"),
        (["--out", "no/where.html"], "there is no folder no"),
    ],
)
def test_a_bad_out_is_refused(lake: Lake, out: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        run_command("report", ["--lake.uri", str(lake.uri), *out])


def make_config(lake: Lake, **report: Any) -> Config:
    return Config.model_validate({"lake": lake.model_dump(), "report": report})


def test_what_is_erased_is_in_no_report(lake: Lake) -> None:
    for run in ("r1", "r2"):
        write_report(make_config(lake), run)
    reports = Reports(lake)
    assert reports.list_recordings("r1") == {"a", "b", "c", "d"}
    assert reports.list_recordings("r2") == {"a", "b", "c", "e"}
    receipt = forget(lake, Subjects(recordings=("a", "c")))
    assert receipt.report_lines == 5  # among the slowest of both runs, and c as the least covered of r2
    assert reports.list_recordings("r1") == {"b", "d"}
    assert reports.list_recordings("r2") == {"b", "e"}
    page = _Page(reports.read("r2"))
    assert page.open == []
    assert not re.search(r"<code>[ac]</code>", reports.read("r2"))


def test_a_report_that_was_made_before_an_erasure_and_written_after_it_is_cleared(lake: Lake) -> None:
    page = render_report(read_report(lake, run_id="r2"))
    forget(lake, Subjects(recordings=("c",)))
    Reports(lake).write("r2", page)
    assert clear_reports(lake, "r2") == 2
    assert Reports(lake).list_recordings("r2") == {"a", "b", "e"}
    assert clear_reports(lake) == 0
