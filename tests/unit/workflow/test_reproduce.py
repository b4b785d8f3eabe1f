"""What ``dictalake reproduce`` takes from a lake before it makes anything: the rows, their objects, their configuration."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dictalake.cli.commands.reproduce import split_words
from dictalake.cli.main import run_command
from dictalake.cli.reproduce import Result, choose_rows, show, split_by_uri, write_json
from dictalake.config.sections import Config, Lake
from dictalake.errors import ConfigError
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.records import make_recording_id
from dictalake.workflow.compare_rows import compare_rows, find_causes
from dictalake.workflow.reproduce import Move, recall_config, why_not
from dictalake.workflow.row_origin import find_object
from tests.lake_rows import FINGERPRINT, make_failed_row, make_row

A, B, C = (letter * 32 for letter in "abc")
ERASED = {"stage": "load", "reason": "erased", "detail": "", "retryable": False}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """``A`` failed and succeeded at the second try, ``B`` has two fingerprints, ``C`` was erased."""
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    table = TranscriptTable(lake)
    other = {"fingerprint": "7be1d0a94c52", "provenance": make_row(B)["provenance"] | {"fingerprint": "7be1d0a94c52"}}
    rows = [
        make_failed_row(A),
        make_row(A, attempt=1),
        make_row(B),
        make_row(B, **other),
        make_failed_row(C, error=ERASED),
    ]
    for row in rows:
        table.commit(write_staged(make_transcripts([row]), lake))
    return lake


def test_of_each_recording_the_newest_good_row_is_taken(lake: Lake) -> None:
    assert choose_rows(lake, [A], None, 0, None) == [(A, FINGERPRINT, 1)]
    assert choose_rows(lake, [B], None, 0, "7be1d0a94c52") == [(B, "7be1d0a94c52", 0)]


def test_a_sample_draws_no_erased_recording_and_the_same_ones_again(lake: Lake) -> None:
    drawn = choose_rows(lake, [], 5, 0, None)
    assert {recording_id for recording_id, _, _ in drawn} == {A, B}
    assert choose_rows(lake, [], 1, 7, None) == choose_rows(lake, [], 1, 7, None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give recording ids, 32 hex digits each, or --sample N"),
        ([A, "--sample", "2"], "give recording ids, 32 hex digits each, or --sample N"),
        (["--sample", "0"], "give recording ids, 32 hex digits each, or --sample N"),
        (["d" * 32], f"the lake has no row of {'d' * 32}"),
        ([A, "--fingerprint", "000000000000"], f"no row under the fingerprint 000000000000 of {A}"),
    ],
)
def test_what_cannot_be_found_is_refused_in_words(lake: Lake, arguments: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run_command("reproduce", ["--lake.uri", str(lake.uri), *arguments])


def test_the_lake_comes_first_and_each_id_counts_once() -> None:
    assert split_words(["./lake", A, C, A]) == ("./lake", [A, C])
    assert split_words([A]) == (None, [A])
    with pytest.raises(ConfigError, match="'not-an-id' is no recording id"):
        split_words(["./lake", "not-an-id"])


def test_rows_of_one_uri_are_made_one_after_the_other() -> None:
    rows: list[dict[str, Any]] = [make_row(A), make_row(A, attempt=1), make_row(B)]
    batches = list(split_by_uri(rows))
    assert sorted(len(batch) for batch in batches) == [1, 2]
    assert all(len({row["source"]["uri"] for row in batch}) == len(batch) for batch in batches)


def test_the_recorded_configuration_is_taken_with_changes_over_it() -> None:
    here = Config.model_validate({"lake": {"uri": "here"}, "archive": {"storage_options": {"key": "mine"}}})
    archive = {"uri": "gs://a", "storage_options": {"key": "***"}}
    recorded = {"decoding": {"beam_width": 16, "unheard_of": 1}, "archive": archive}
    config = recall_config(recorded, here, {"acoustic": {"dtype": "float32"}})
    assert (config.decoding.beam_width, config.acoustic.dtype, config.lake.uri) == (16, "float32", "here")
    assert (config.archive.uri, config.archive.storage_options) == ("gs://a", {"key": "mine"})


def test_a_recorded_value_that_is_allowed_no_more_names_its_key() -> None:
    with pytest.raises(ConfigError, match=r"decoding\.beam_width"):
        recall_config({"decoding": {"beam_width": 0}}, Config(), {})


def test_what_was_erased_or_ended_its_worker_is_not_made_again() -> None:
    assert why_not(make_row(A) | {"error": None}) is None
    assert "erased" in str(why_not(make_failed_row(A, error=ERASED) | {"source": None}))
    crashed = {"stage": "load", "reason": "worker_crashed", "detail": "", "retryable": False}
    assert "ended the process" in str(why_not(make_failed_row(A, error=crashed) | {"source": {"uri": "x"}}))
    bad_line = crashed | {"reason": "bad_manifest_line"}
    assert "bad line of a manifest" in str(why_not(make_failed_row(A, error=bad_line) | {"source": {"uri": "x"}}))


def test_a_file_of_an_archive_object_leads_to_that_object() -> None:
    inside, archive = "gs://archive/a#1.zip#ward/x.wav", "gs://archive/a#1.zip"
    row = make_row(A, archive_id=make_recording_id(archive, "1"))
    row["source"] |= {"uri": inside, "modified_at": None}
    assert find_object(row).uri == archive
    row["archive_id"] = B
    with pytest.raises(ConfigError, match="does not say which archive object"):
        find_object(row)


def test_a_moved_archive_is_read_at_its_new_place(tmp_path: Path) -> None:
    row = make_row(A, archive_id=None)
    row["source"] |= {"modified_at": None}
    moved = Move("gs://archive", str(tmp_path), {})(find_object(row))
    assert moved.uri == f"file://{tmp_path}/{A}.wav"
    with pytest.raises(ConfigError, match="was not below gs://other"):
        Move("gs://other", str(tmp_path), {})(find_object(row))


ALL_THE_SAME = "made from the same bytes, by the same weights, configuration, device and versions"
UNKNOWN_CODE = "this code is of no known commit, or changed since"
UNCOMPARED = "was not read, or not heard"
COMMIT = "c" * 40
NOT_FOUND = {"stage": "load", "reason": "not_found", "detail": "", "retryable": True}


def make_heard(commit: str | None = COMMIT) -> dict[str, Any]:
    row = make_row(A)
    row["source"] |= {"sha256": "b" * 64}
    row["provenance"] |= {"device": "cpu", "git_commit": commit}
    return dict(make_transcripts([row]).to_pylist()[0])


def make_unread() -> dict[str, Any]:
    """The same recording, gone from the archive."""
    row = make_failed_row(A, error=NOT_FOUND, source={"uri": f"gs://archive/{A}.wav", "version": "1"})
    row["provenance"] = {"run_id": "run-1", "git_commit": COMMIT, "versions": [("torch", "2.13.0")]}
    return dict(make_transcripts([row]).to_pylist()[0])


def say(then: dict[str, Any], now: dict[str, Any]) -> tuple[Result, str]:
    """The result, and what is shown of it."""
    result = Result(then, now, tuple(find_causes(then, now, {}, {})), compare_rows(then, now))
    shown = io.StringIO()
    show([result], Console(file=shown, width=200))
    return result, shown.getvalue()


def test_a_row_made_by_a_known_commit_is_said_to_be_made_by_it() -> None:
    _, shown = say(make_heard(), make_heard())
    assert f"{ALL_THE_SAME}, by the same commit" in shown
    assert UNKNOWN_CODE not in shown
    assert UNCOMPARED not in shown


@pytest.mark.parametrize("commit", [None, f"{COMMIT}-dirty"])
def test_code_of_no_known_commit_is_never_called_the_same(commit: str | None, tmp_path: Path) -> None:
    result, shown = say(make_heard(commit), make_heard(commit))
    assert UNKNOWN_CODE in shown
    assert ALL_THE_SAME in shown
    assert "same commit" not in shown
    out = tmp_path / "again.json"
    write_json(out, [result, Result(make_unread(), why="it was erased")])
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert [(row["is_code_known"], row["is_compared"]) for row in rows] == [(False, True), (None, None)]


def test_a_recording_that_is_gone_is_not_said_to_have_the_same_bytes() -> None:
    result, shown = say(make_heard(), make_unread())
    assert (result.verdict, result.causes) == ("differs", ())
    assert ALL_THE_SAME not in shown
    assert "of 1 row not everything could be compared" in shown
    assert UNCOMPARED in shown


def test_a_failure_that_comes_out_again_unread_is_not_said_to_have_the_same_bytes() -> None:
    result, shown = say(make_unread(), make_unread())
    assert result.verdict == "identical"
    assert ALL_THE_SAME not in shown
    assert UNCOMPARED in shown
