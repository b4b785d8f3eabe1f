"""``dictalake demo``: its table, its exit status and its archive."""

from __future__ import annotations

from rich.console import Console

from dictalake.cli.demo import failed_as_intended, show_table
from dictalake.cli.demo import make_rows as make_demo_rows
from dictalake.config.sections import Archive
from dictalake.evaluation.systems import (
    SystemOutput,
    read_references,
)
from tests.evaluated import BROKEN, GOOD, OUTPUTS, RECORDINGS


def test_the_demo_succeeds_when_exactly_the_recordings_without_reference_failed() -> None:
    good = {"a": OUTPUTS["a"], "c": OUTPUTS["c"]}
    assert failed_as_intended([GOOD, BROKEN], {"greedy": good, "lm": good})
    assert not failed_as_intended(RECORDINGS, {"greedy": OUTPUTS, "lm": OUTPUTS})
    assert not failed_as_intended([GOOD, BROKEN], {"greedy": good, "lm": good | {"c": SystemOutput("a note", "A note")}})


def test_the_demo_shows_each_file_with_its_rates_and_fits_the_width() -> None:
    better = OUTPUTS | {"a": SystemOutput("no acute fracture", "No acute fracture. " * 10)}
    console = Console(width=90, force_terminal=True, no_color=True)
    with console.capture() as capture:
        show_table(make_demo_rows(RECORDINGS, {"greedy": OUTPUTS, "lm": better}), console)
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capture.get().splitlines() if line.startswith("│")]
    assert lines == [
        ["ct/1.wav", "No acute fracture. No acute fracture. No acute fracture.…", "33.3", "0.0"],
        ["ct/2.wav", "fetch_failed: 4 tries failed", "100.0", "100.0"],
        ["notes.wav", "not_audio: this is text", "", ""],
    ]


def test_the_demo_archive_is_what_its_readme_says() -> None:
    recordings = read_references(Archive.model_validate({"manifest": "embedded:demo-archive/references.csv"}))
    spoken = [recording for recording in recordings if "reference" in recording.metadata]
    assert (len(recordings), len(spoken)) == (29, 27)
    assert sum(recording.size_bytes for recording in recordings) <= 6_000_000
