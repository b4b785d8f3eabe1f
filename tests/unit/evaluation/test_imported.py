"""Texts of other recognisers: four kinds of files, names that fit a recording, and what is missing."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dictalake.cli.main import run_command
from dictalake.errors import ConfigError
from dictalake.evaluation.imported import NO_HYPOTHESIS, import_hypotheses, read_hypotheses
from tests.evaluated import BROKEN, GOOD, LOST, RECORDINGS

CTM = """;; a comment
1 A 1.50 0.2 fracture 0.9
1 A 0.10 0.2 no 0.9
1 A 0.40 0.2 acute
1 A * * <ALT_BEGIN>
1 A 2.00 0.2 seen
1 A * * <ALT>
1 A 2.00 0.2 scene
1 A * * <ALT_END>
2 A 0.00 0.2 lungs
"""


@pytest.fixture(autouse=True)
def usual_field_size() -> Iterator[None]:
    """A reader of manifests raises the limit for the whole process."""
    before = csv.field_size_limit(131_072)
    yield
    csv.field_size_limit(before)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "uri,voice,text\n1,slt,no acute fracture seen\n2,awb,lungs\n"),
        ("excel.csv", "﻿File,Transcript\n1,no acute fracture seen\n2,lungs\n"),
        ("a.jsonl", '{"uri": "1", "text": "no acute fracture seen"}\n\n{"uri": "2", "hypothesis": "lungs"}\n'),
        ("a.stm", "1 A slt 2.0 3.0 <o,f0> seen\n1 A slt 0.1 1.9 no acute fracture\n;; x\n2 A awb 0 1 lungs\n"),
        ("a.ctm", CTM),
    ],
)
def test_each_kind_of_file_says_the_same(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert read_hypotheses(path) == {"1": "no acute fracture seen", "2": "lungs"}


@pytest.mark.parametrize(("name", "form"), [("a.jsonl", '{{"uri": "1", "text": "{}"}}'), ("a.stm", "1 A x 0 1 {}")])
def test_a_text_may_hold_what_unicode_counts_as_the_end_of_a_line(tmp_path: Path, name: str, form: str) -> None:
    path = tmp_path / name
    path.write_text(form.format("no\u2028acute\u0085fracture"), encoding="utf-8")
    assert read_hypotheses(path)["1"].split() == ["no", "acute", "fracture"]


def write(path: Path, *names: str) -> Path:
    path.write_text("".join(json.dumps({"uri": name, "text": f"text of {name}"}) + "\n" for name in names), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", [GOOD.uri, "recordings/ct/1.wav", "./ct/1.wav", "1.wav", "ct/1", "1"])
def test_a_name_is_the_uri_or_its_end(tmp_path: Path, name: str) -> None:
    imported = import_hypotheses(write(tmp_path / "a.jsonl", name), RECORDINGS)
    assert imported.outputs[GOOD.recording_id].text_raw == f"text of {name}"


def test_missing_recordings_fail_and_unknown_names_are_counted(tmp_path: Path) -> None:
    imported = import_hypotheses(write(tmp_path / "a.jsonl", "1.wav", "3.wav", "other/1.wav"), RECORDINGS)
    assert (imported.missing, imported.unknown) == (2, 2)
    reasons = {one.recording_id: imported.outputs[one.recording_id].reason for one in RECORDINGS}
    assert reasons == {GOOD.recording_id: None, LOST.recording_id: NO_HYPOTHESIS, BROKEN.recording_id: NO_HYPOTHESIS}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x", r"must end in .csv, .jsonl, .ndjson, .stm, .ctm$"),
        ("a.csv", "uri,words\n1,x\n", r"needs one of uri, .* and one of text, hypothesis, transcript, prediction$"),
        ("a.csv", "uri,text\n1,x\n1,y\n", r"line 3: the second text of a recording"),
        ("a.csv", "uri,text\n1,x\n1 ,y\n", r"line 3: the second text of a recording"),
        ("a.csv", f'uri,text\n1,"Zebrafinch{"x" * 140_000}\n', r"line 2: is no CSV; does a quotation mark not end\?$"),
        ("a.csv", "uri,text\n,x\n", r"line 2: no recording is named"),
        ("a.jsonl", '{"uri": "1", "text": "x"}\n{Zebrafinch\n', r"line 2: is no JSON$"),
        ("a.jsonl", '{"uri": "1", "text": 3}\n', r"line 1: uri and text must be texts$"),
        ("a.stm", "1 A slt 0\n", r"line 1: a line of STM is FILE CHANNEL SPEAKER BEGIN END WORDS$"),
        ("a.ctm", "1 A now 0.2 word\n", r"line 1: a time is no number of seconds$"),
        ("a.csv", "uri,text\n", r"there is no text in it$"),
        ("a.csv", "uri,text\n1,x\n1.wav,y\n", r"text 2 is the second one of a recording"),
    ],
)
def test_a_file_with_a_mistake_is_refused_without_its_words(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as refusal:
        import_hypotheses(path, RECORDINGS)
    assert "Zebrafinch" not in str(refusal.value)


def test_a_name_that_fits_two_recordings_is_refused(tmp_path: Path) -> None:
    several = [GOOD, LOST, type(GOOD)("d", "file:///other/1.wav", "1", 10)]
    with pytest.raises(ConfigError, match="the name of text 1 fits 2 recordings"):
        import_hypotheses(write(tmp_path / "a.jsonl", "1.wav"), several)


def test_evaluate_scores_files_of_texts_and_says_what_they_lack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "refs.csv").write_text("uri,reference\n1.wav,no acute fracture\n2.wav,lungs are clear\n", encoding="utf-8")
    for name in ("1.wav", "2.wav"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "cloud.csv").write_text("uri,text\n1.wav,No acute fracture.\n9.wav,x\n", encoding="utf-8")
    (tmp_path / "dragon.stm").write_text("1 A x 0 1 acute fracture\n2 A x 0 1 lungs are clear\n", encoding="utf-8")
    given = [str(tmp_path / "refs.csv"), "--format", "json"]
    files = [f"--hypotheses=cloud={tmp_path}/cloud.csv", f"--hypotheses=dragon={tmp_path}/dragon.stm"]
    assert run_command("evaluate", [*given, *files]) == 3
    captured = capsys.readouterr()
    assert "cloud: 1 of 2 recordings have a text, 1 have none and count as failed; 1 texts are of no recording" in captured.err
    assert "dragon: 2 of 2 recordings have a text\n" in captured.err
    systems = json.loads(captured.out)["systems"]
    assert list(systems) == ["cloud", "dragon"]
    assert [systems[name]["medasr"]["deletions"] for name in systems] == [3, 1]
    assert [systems[name]["medasr"]["failed"] for name in systems] == [1, 0]
    with pytest.raises(ConfigError, match="each system needs a name of its own"):
        run_command("evaluate", [*given, files[0], files[0]])
