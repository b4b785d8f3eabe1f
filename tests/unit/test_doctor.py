"""``dictalake doctor``: what is in order is ok, what is not is named with what to do, and nothing is left in the lake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import doctor
from tests.recordings import make_sound, write_wav

CHECKS = [
    *("python", "packages", "patient key", "archive", "lake: objects", "lake: commits", "lake: table"),
    *("model", "decoder", "gpu", "workers", "disk"),
]


@pytest.fixture
def place(tmp_path: Path, random_lasr: Path) -> dict[str, str]:
    """Options of a run that would work."""
    write_wav(tmp_path / "archive/doe-jane.wav", make_sound(1.0, seed=1))
    return {
        "archive.uri": str(tmp_path / "archive"),
        "lake.uri": str(tmp_path / "lake"),
        "acoustic.model": str(random_lasr),
        "acoustic.device": "cpu",
        "decoding.kind": "greedy",
    }


def consult(options: dict[str, str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, doctor.Finding]]:
    """Exit code, and the findings by check."""
    code = doctor.main(["--format", "json", *(f"--{key}={value}" for key, value in options.items())])
    out = capsys.readouterr().out
    assert "doe-jane" not in out
    return code, {one["check"]: doctor.Finding(**one) for one in json.loads(out)}


def test_where_a_run_would_work_nothing_fails(
    place: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = consult(place, capsys)
    assert (code, list(found)) == (0, CHECKS)
    assert [finding for finding in found.values() if finding.state == doctor.FAIL] == []
    assert "a recording of 1 s read and decoded" in found["archive"].what
    assert "float32 on cpu" in found["model"].what or "bfloat16 on cpu" in found["model"].what
    assert found["decoder"].what == "greedy"
    assert list((tmp_path / "lake").rglob("*")) == [], "what was written to try is gone"


@pytest.mark.parametrize(
    ("changes", "check", "words"),
    [
        ({"archive.uri": "{}/nowhere"}, "archive", "there is nothing there"),
        ({"archive.uri": "{}/empty"}, "archive", "holds no recording"),
        ({"archive.uri": "{}/broken"}, "archive", "none of the first 1 recordings could be read: not_audio"),
        ({"acoustic.model": "{}/no-model"}, "model", "no-model"),
        ({"decoding.kind": "beam", "decoding.lm": "{}/no-lm"}, "decoder", "no such file"),
        ({"lake.uri": "{}/file/lake"}, "lake: objects", "NotADirectoryError"),
        ({"lake.uri": "ftp://host/lake"}, "lake: commits", "allowed are a path, file://, gs:// and s3://"),
        ({"acoustic.device": "cuda"}, "gpu", "PyTorch sees no GPU"),
        ({"acoustic.actors": "500"}, "workers", "take fewer actors"),
        ({"archive.patient_fields": "PatientID"}, "patient key", "DICTALAKE_PATIENT_KEY"),
    ],
)
def test_what_is_wrong_is_named_and_all_else_is_checked_too(
    place: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    check: str,
    words: str,
) -> None:
    monkeypatch.delenv("DICTALAKE_PATIENT_KEY", raising=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/note.wav").write_text("call the ward", encoding="utf-8")
    (tmp_path / "file").write_bytes(b"")
    code, found = consult(place | {key: value.format(tmp_path) for key, value in changes.items()}, capsys)
    assert (code, found[check].state, list(found)) == (2, doctor.FAIL, CHECKS)
    assert words in found[check].what


def test_the_table_shows_each_check_with_its_state(place: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([f"--{key}={value}" for key, value in (place | {"archive.uri": "nowhere"}).items()]) == 2
    out = capsys.readouterr().out
    assert all(f"│ {check} " in out for check in CHECKS)
    assert "│ FAIL │" in out
