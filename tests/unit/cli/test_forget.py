"""``dictalake forget`` shows what it would erase, asks, names what it does not find, and says by its exit code how it went."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from platformdirs import user_cache_path
from rich.console import Console

from dictalake.cli.erasure_receipt import show_plan
from dictalake.cli.main import run_command
from dictalake.config.sections import Config, Lake
from dictalake.errors import ConfigError
from dictalake.lake.erase import Erasure, Subjects
from dictalake.lake.query import open_lake
from dictalake.lake.runs import RunLog, RunRecord, describe_config
from dictalake.lake.schema import make_transcripts
from dictalake.lake.search import TextIndex, default_folder
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.lake.tombstones import Erasures, read_erased
from tests.lake_rows import make_row

A, TYPO = "gs://archive/Zebrafinch a.wav", "gs://archive/Zebrafinch b.wav"
PATIENT = "f00d" * 16


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    rows = [make_row("a", source={"uri": A, "version": "1"}), make_row("b", dicom=None)]
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))
    return lake


def read_ids(lake: Lake) -> list[str]:
    return sorted(open_lake(str(lake.uri)).to_table()["recording_id"].to_pylist())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> Terminal:
    """Somebody sits at a terminal and types ``text``; what they are asked."""
    asked = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(text))
    monkeypatch.setattr(sys, "stderr", asked)
    return asked


@pytest.mark.parametrize("is_terminal", [(False, False), (True, False), (False, True)])
def test_without_a_terminal_it_refuses_unless_it_is_told_yes(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, is_terminal: tuple[bool, bool]
) -> None:
    for name, one in zip(("stdin", "stderr"), is_terminal, strict=True):
        monkeypatch.setattr(sys, name, Terminal("yes\n") if one else io.StringIO("yes\n"))
    with pytest.raises(ConfigError, match=r"nobody can answer here: give --yes, or --dry-run"):
        run_command("forget", [str(lake.uri), "--recording", "a"])
    assert read_ids(lake) == ["a", "b"]
    assert run_command("forget", [str(lake.uri), "--recording", "a", "--dry-run"]) == 0
    assert read_ids(lake) == ["a", "b"]
    assert run_command("forget", [str(lake.uri), "--recording", "a", "--yes"]) == 0
    assert read_ids(lake) == ["b"]


@pytest.mark.parametrize(("typed", "is_erased"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False)])
def test_it_shows_what_it_would_erase_and_asks(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, is_erased: bool
) -> None:
    asked = answer(monkeypatch, typed)
    if is_erased:
        assert run_command("forget", [str(lake.uri), "--uri", A]) == 0
    else:
        with pytest.raises(ConfigError, match=r"^the answer was no, so nothing was erased$"):
            run_command("forget", [str(lake.uri), "--uri", A])
    assert "Erase 1 recordings (1 rows) for good? [y/N] " in asked.getvalue()
    shown = capsys.readouterr().out
    assert "to be erased" in shown
    assert "2026-03" in shown
    assert "Zebrafinch" not in shown, "piped output holds no URI"
    assert read_ids(lake) == (["b"] if is_erased else ["a", "b"])
    assert bool(read_erased(lake)) == is_erased


def test_what_matches_nothing_is_named_one_by_one_and_leaves_no_tombstone_and_no_line_in_a_log(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(lake.uri), "--recording", "a", "--recording", "typo", "--uri", TYPO, "--study", "1.2.3"]
    assert run_command("forget", [*arguments, "--yes", "--logs.file", str(tmp_path / "log")]) == 3
    shown = capsys.readouterr().out
    for one in ("--recording number 2", "--uri number 1", "--study number 1"):
        assert f"{one}: matches nothing in the lake, check the spelling; it is not kept out\n" in shown
    assert "Zebrafinch" not in shown, "piped output may be kept"
    assert read_ids(lake) == ["b"]
    erased = Erasures(lake).read()
    assert erased.covers_uri(A)
    assert not erased.covers_uri(TYPO)
    assert len(erased.hashes) == 1
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert "1 recordings erased" in log
    assert "Zebrafinch" not in log
    assert "typo" not in log
    (receipt,) = Path(f"{lake.uri}/erasures/receipts").iterdir()
    assert json.loads(receipt.read_text())["unknown"] == 3
    assert "typo" not in receipt.read_text()


def test_where_nothing_matches_nothing_is_changed_unless_it_is_forced(
    lake: Lake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert run_command("forget", [str(lake.uri), "--uri", TYPO, "--yes"]) == 3
    assert "nothing was erased" in capsys.readouterr().out
    assert not Erasures(lake).read()
    assert not Path(f"{lake.uri}/erasures/receipts").exists()
    assert run_command("forget", [str(lake.uri), "--uri", TYPO, "--yes", "--force"]) == 0
    assert "it is kept out from now on" in capsys.readouterr().out
    assert Erasures(lake).read().covers_uri(TYPO)
    assert run_command("forget", [str(lake.uri), "--uri", TYPO, "--yes"]) == 0
    assert "--uri number 1: was erased before" in capsys.readouterr().out
    assert run_command("forget", [str(lake.uri), "--recording", "typo", "--yes", "--force"]) == 3  # no id can be kept out


def test_a_program_gets_all_of_it_as_json(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(lake.uri), "--uri", A, "--uri", TYPO, "--format", "json"]
    assert run_command("forget", [*arguments, "--dry-run"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["dry_run"], told["recordings"], told["unknown_named"]) == (True, 1, {"uris": [TYPO]})
    assert [(one["recording_id"], one["uri"], one["rows"]) for one in told["found"]] == [("a", A, 1)]
    assert run_command("forget", [*arguments, "--yes"]) == 3
    assert json.loads(capsys.readouterr().out)["tombstones"] == 1


def test_on_a_terminal_what_matches_nothing_is_named_by_its_value(lake: Lake) -> None:
    plan = Erasure(lake, Subjects(uris=(A, TYPO))).look()
    for is_terminal in (True, False):
        out = io.StringIO()
        show_plan(plan, console=Console(file=out, force_terminal=is_terminal, width=200))
        told = f"--uri {TYPO}" if is_terminal else "--uri number 2"
        assert f"{told}: matches nothing in the lake" in out.getvalue()
        assert (TYPO in out.getvalue()) == is_terminal


def commit_dicom(lake: Lake, run_id: str, fields: list[str] | None, **dicom: Any) -> None:
    row = make_row(run_id, run_id=run_id, dicom={"study_instance_uid": "1.2.3", **dicom})
    TranscriptTable(lake).commit(write_staged(make_transcripts([row]), lake))
    if fields is not None:
        config, config_hash = describe_config(Config.model_validate({"archive": {"patient_fields": fields}}))
        RunLog(lake).append(RunRecord(run_id=run_id, event="started", config=config, config_hash=config_hash))


def test_a_patient_is_not_taken_for_erased_where_rows_were_made_without_hashes(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("forget", [str(lake.uri), "--recording", "a", "--yes"]) == 0  # DICOM of an unknown run
    commit_dicom(lake, "hashed", ["PatientID"], patient_id_hash=PATIENT)
    commit_dicom(lake, "nameless", ["PatientID"])  # its object names no patient
    arguments = [str(lake.uri), "--patient", PATIENT, "--yes"]
    assert run_command("forget", [*arguments, "--dry-run"]) == 0
    for run_id, fields in (("early", []), ("of another field", ["PatientName"]), ("unrecorded", None)):
        commit_dicom(lake, run_id, fields)
    for dry_run in (["--dry-run"], []):
        capsys.readouterr()
        with pytest.raises(ConfigError, match=r"^--patient: 3 rows of DICOM objects were made without this hash"):
            run_command("forget", [*arguments, *dry_run])
        assert "3 rows of DICOM objects have no such hash" in capsys.readouterr().out
    assert run_command("forget", [*arguments, "--dry-run", "--leave-unhashed"]) == 0
    assert "hashed" in read_ids(lake)
    assert run_command("forget", [*arguments, "--leave-unhashed"]) == 0
    assert read_ids(lake) == ["b", "early", "nameless", "of another field", "unrecorded"]


def test_the_search_index_of_whoever_erases_goes_and_that_of_another_lake_stays(lake: Lake, tmp_path: Path) -> None:
    other = Lake.model_validate({"uri": str(tmp_path / "other")})
    TranscriptTable(other).commit(write_staged(make_transcripts([make_row("o")]), other))
    for one in (lake, other):
        TextIndex(one, default_folder(str(one.uri))).refresh()
    unfinished = user_cache_path("dictalake") / "search/unfinished" / f"index-{'0' * 32}"
    unfinished.mkdir(parents=True)
    assert run_command("forget", [str(lake.uri), "--recording", "a", "--yes"]) == 0
    left = {path.parent for path in (user_cache_path("dictalake") / "search").rglob("index-*")}
    assert left == {default_folder(str(other.uri))}
