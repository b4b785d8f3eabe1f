"""``dictalake promote`` and ``compare``: what counts, and what a promotion would change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dictalake.cli.main import run_command
from dictalake.config.sections import Lake
from dictalake.errors import ConfigError
from dictalake.evaluation.promotion import compare_fingerprints
from dictalake.lake.fingerprints import FingerprintLog
from tests.truth_lake import A, B, C, commit, make_lake, make_version, show

SAID = {
    "gs://a/1": ("no acute fracture of the left wrist {period}", "acute fracture of the right wrist {period}"),
    "gs://a/2": ("aspirin five milligrams {period}", "aspirin nine milligrams {period}"),
    "gs://a/3": ("lungs are clear {period}", "lungs are clear"),
}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = make_lake(tmp_path)
    for number, (uri, texts) in enumerate(SAID.items()):
        metadata = [("specialty", "cardiology" if number == 1 else "radiology")]
        for name, text, confidence in zip((A, B), texts, (0.9, 0.7), strict=True):
            changes: dict[str, Any] = {"text_raw": text, "metadata": metadata, "confidence": confidence}
            commit(lake, make_version(uri, fingerprint=name, **changes))
    commit(lake, make_version("gs://a/4"), make_version("gs://a/5", fingerprint=B))
    FingerprintLog(lake).promote_first(A, "run-1")
    return lake


def test_a_comparison_counts_words_and_what_hurts_by_specialty(lake: Lake) -> None:
    found = compare_fingerprints(lake, A, B, pairs=1)
    whole = found.whole
    assert (whole.both, whole.only_old, whole.only_new, whole.compared, whole.changed) == (3, 1, 1, 3, 2)
    # "no" was dropped, "left" became "right", "five" became "nine"; punctuation is no word.
    assert (whole.words, whole.word_differences) == (7 + 3 + 3, 3)
    clinical = whole.clinical
    assert (clinical.negation_errors, clinical.number_errors, clinical.laterality_errors) == (1, 1, 1)
    assert set(found.groups) >= {"cardiology", "radiology"}
    assert found.groups["cardiology"].rate == pytest.approx(1 / 3)
    assert whole.old_confidence == pytest.approx(0.9)
    assert whole.new_confidence == pytest.approx(0.7)
    [pair] = found.pairs
    assert (pair.old_text, pair.new_text, pair.differences) == (*SAID["gs://a/1"], 2)


def test_a_term_that_one_of_them_lacks_is_named(lake: Lake) -> None:
    commit(
        lake,
        make_version("gs://a/6", text_raw="she takes warfarin"),
        make_version("gs://a/6", fingerprint=B, text_raw="she takes more"),
    )
    found = compare_fingerprints(lake, A, B)
    assert found.whole.terms_lost["warfarin"] == 1
    assert compare_fingerprints(lake, B, A).whole.terms_gained["warfarin"] == 1


def test_a_sample_bounds_the_words_that_are_read_and_not_the_counts(lake: Lake) -> None:
    whole = compare_fingerprints(lake, A, B, sample=1).whole
    assert (whole.both, whole.compared) == (3, 1)


def test_texts_are_shown_to_whoever_asks_for_them_alone(lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command("compare", [str(lake.uri), A, B])
    assert "wrist" not in capsys.readouterr().out
    run_command("compare", [str(lake.uri), A, B, "--pairs", "2"])
    shown = capsys.readouterr().out
    assert "new: acute fracture of the right wrist {period}" in shown
    assert "words that differ          23.1 % of 13" in shown
    out = tmp_path / "pairs.jsonl"
    run_command("compare", [str(lake.uri), A, B, "--out", str(out), "--format", "json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["by_specialty"]["radiology"]["both"] == 2
    assert "wrist" not in json.dumps({key: value for key, value in printed.items() if key != "by_specialty"})
    assert [json.loads(line)["differences"] for line in out.read_text(encoding="utf-8").splitlines()] == [2, 1]


def test_a_fingerprint_without_rows_is_refused(lake: Lake) -> None:
    for command, arguments in (("compare", [A, C]), ("promote", [C])):
        with pytest.raises(ConfigError, match=f"^{C}: the lake has no rows of this fingerprint; it has {A}, {B}$"):
            run_command(command, [str(lake.uri), *arguments])


def test_promote_says_what_was_before_and_lists_what_counts(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    run_command("promote", [str(lake.uri), "--format", "json"])
    rows = json.loads(capsys.readouterr().out)
    assert [(row["fingerprint"], row["standing"], row["recordings"], row["shown"]) for row in rows] == [
        (A, "production", 4, 4),
        (B, "experiment", 4, 0),
    ]
    run_command("promote", [str(lake.uri), B])
    assert capsys.readouterr().out == f"{B} is production now, {A} was before; `dictalake promote LAKE {A}` goes back\n"
    assert {fingerprint for _, fingerprint in show(lake).values()} == {A, B}
    run_command("promote", ["--lake.uri", str(lake.uri), B])
    assert capsys.readouterr().out == f"{B} is production already\n"
    run_command("promote", [str(lake.uri)])
    assert [line.split()[:4] for line in capsys.readouterr().out.splitlines()[1:]] == [
        [B, "production", "4", "4"],
        [A, "earlier", "4", "1"],
    ]
