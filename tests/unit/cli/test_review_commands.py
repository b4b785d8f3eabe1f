"""``dictalake review`` and ``dictalake corrections``: what they refuse, whom they let in, and what they write."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from dictalake.cli.main import run_command
from dictalake.config.sections import Config, Lake
from dictalake.errors import ConfigError, RunError
from dictalake.lake.corrections import CorrectionRecord, Corrections
from dictalake.lake.query import connect
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.review.server import ReviewServer
from dictalake.review.sessions import Users
from tests.lake_rows import FINGERPRINT, make_row

PASSWORD = "a long password"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """``a`` was corrected, ``b`` is no dictation, ``c`` is in an archive object, nobody has seen ``d``."""
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    words = [
        {"word": word, "start_s": float(i), "end_s": i + 0.5, "confidence": 0.9, "channel": 0}
        for i, word in enumerate(["no", "acute", "fracture", "{period}"])
    ]
    rows = [make_row(one, words=words, archive_id="z" if one == "c" else None) for one in "abcd"]
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))
    for one, text, flags in (("a", "=No old fracture.", ()), ("b", "", ("not_dictation",)), ("c", "Nothing.", ())):
        seen = {"fingerprint": FINGERPRINT, "attempt": 0, "words": 3, "word_errors": 1, "confidence": 0.5}
        record = CorrectionRecord(recording_id=one, event="corrected", who="Ann", text=text, flags=flags, **seen)  # type: ignore[arg-type]
        Corrections(lake).save(record)
    return lake


def export(lake: Lake, form: str, out: Path, *more: str) -> str:
    arguments = ["export", str(lake.uri), "--format", form, "--out", str(out), "--review.user", "Bob", *more]
    assert run_command("corrections", arguments) == 0
    return out.read_text(encoding="utf-8")


def test_a_manifest_has_what_was_said_as_the_machine_writes_it(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [line] = csv.DictReader(export(lake, "manifest", tmp_path / "m.csv").splitlines())
    assert (line["uri"], line["reference"]) == ("gs://archive/a.wav", "no old fracture {period}")
    assert (line["checked_by"], line["department"]) == ("Ann", "radiology")
    told = capsys.readouterr().err
    assert "1 written" in told
    assert "1 left out that are flagged" in told
    assert "1 left out that are files in archive objects" in told
    with connect(str(lake.uri)) as database:
        assert database.sql("SELECT who, recording_id, what FROM access_records").fetchall() == [("Bob", "a", "export")]


def test_the_other_formats(lake: Lake, tmp_path: Path) -> None:
    assert export(lake, "text", tmp_path / "t.txt") == "no old fracture {period}\nnothing {period}\n"
    lines = list(csv.DictReader(export(lake, "csv", tmp_path / "c.csv").splitlines()))
    assert [line["recording_id"] for line in lines] == ["a", "b", "c"]
    assert lines[0]["text_corrected"] == "'=No old fracture."
    assert lines[1]["flags"] == "not_dictation"
    tasks = json.loads(export(lake, "label-studio", tmp_path / "l.json", "--queue", "9"))
    assert [task["data"]["recording_id"] for task in tasks] == ["a", "b", "c", "d"]
    assert tasks[0]["annotations"][0]["result"][0]["value"]["text"] == ["=No old fracture."]
    assert tasks[3]["data"]["audio"] == "gs://archive/d.wav"
    assert "annotations" not in tasks[3]
    assert (tmp_path / "l.json").stat().st_mode & 0o077 == 0


def test_a_correction_of_a_row_that_is_gone_is_counted_and_not_written(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(lake, "text", tmp_path / "t.txt")
    assert "no longer in the lake" not in capsys.readouterr().err
    gone = CorrectionRecord(recording_id="d", event="corrected", who="Ann", text="Gone.", fingerprint="0" * 12, attempt=0)
    Corrections(lake).save(gone)
    assert "gone" not in export(lake, "text", tmp_path / "t.txt")
    assert "2 written" in (told := capsys.readouterr().err)
    assert "1 left out whose transcript is no longer in the lake" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["export", "{lake}"], "--out is missing"),
        (["export", "{lake}", "--format", "json", "--out", "x"], "--format json is not for export"),
        (["wer", "{lake}", "--format", "csv"], "--format csv is not for wer"),
        (["export", "{lake}", "--queue", "3", "--out", "x"], "--queue takes 1 or more, with --format label-studio"),
        (["wer"], "lake.uri is missing"),
    ],
)
def test_a_wrong_question_is_refused_with_what_is_right(lake: Lake, arguments: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        run_command("corrections", [one.replace("{lake}", str(lake.uri)) for one in arguments])


def test_what_cannot_be_written_down_is_not_exported(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "lake/accesses").write_text("no folder")
    (tmp_path / "out").mkdir()
    arguments = ["export", str(lake.uri), "--out", str(tmp_path / "out/m.csv")]
    with pytest.raises(RunError):
        run_command("corrections", arguments)
    assert list((tmp_path / "out").iterdir()) == []
    assert run_command("corrections", [*arguments, "--review.access_log", "false"]) == 0


def test_a_file_that_cannot_be_written_leaves_nothing_behind(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^--out .*: cannot be written"):
        run_command("corrections", ["export", str(lake.uri), "--out", str(tmp_path / "nowhere/m.csv")])


def test_a_person_is_added_with_a_password_that_nobody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, answers = tmp_path / "users.txt", iter([PASSWORD, PASSWORD, PASSWORD, "another one", "short", "short"])
    monkeypatch.setattr("dictalake.cli.commands.review.getpass", lambda question: next(answers))
    arguments = ["--add-user", "Ann", "--review.users", str(file)]
    assert run_command("review", arguments) == 0
    assert PASSWORD not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    users = Users(file)
    assert (users.check("Ann", PASSWORD), users.check("Ann", "wrong"), users.check("Bob", PASSWORD)) == (True, False, False)
    for told in ("the passwords differ", "a password has at least 10 characters"):
        with pytest.raises(ConfigError, match=told):
            run_command("review", arguments)
    with pytest.raises(ConfigError, match=r"say which file with --review\.users"):
        run_command("review", ["--add-user", "Ann"])


def test_a_file_of_users_with_another_line_is_refused(tmp_path: Path) -> None:
    for text, told in (("", "names nobody"), ("Ann:secret\n", "line 1 is not NAME:HASH")):
        (tmp_path / "users.txt").write_text(text)
        with pytest.raises(ConfigError, match=told):
            Users(tmp_path / "users.txt")


def test_a_lake_that_is_not_there_is_told_before_a_page_is_opened(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no dictalake table"):
        run_command("review", [str(tmp_path / "nowhere"), "--no-browser"])
    with pytest.raises(ConfigError, match=r"lake\.uri is missing"):
        run_command("review", ["--no-browser"])


def test_a_certificate_without_its_key_is_refused(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").touch()
    review = {"tls_cert": str(tmp_path / "cert.pem")}
    with pytest.raises(ConfigError, match=r"review\.tls_cert and review\.tls_key go together"):
        ReviewServer(Config.model_validate({"lake": lake.model_dump(), "review": review}))
