"""A whole run in JSON: what it prints and what Ray keeps of it, without a word of a recording, and who may read its files."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

from tests.commands import own_ray_folder, start
from tests.recordings import make_sound, read_rows
from tests.unit.audio.formats.archive_samples import encode

CANARY = "Zyxwandelina"
UMASK = 0o027  # neither what is usual, nor what our own folders have


def test_each_line_is_an_object_none_names_a_recording_and_files_follow_the_umask(random_lasr: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / f"{CANARY} good.wav").write_bytes(encode(make_sound(1.0, seed=1), 16_000, "WAV"))
    (archive / f"{CANARY} letter.wav").write_bytes(f"Dear {CANARY},\nthe wrist is not broken.\n".encode() * 20)
    log = tmp_path / "lines.json"
    options = {
        "archive.uri": str(archive),
        "lake.uri": str(tmp_path / "lake"),
        "acoustic.model": str(random_lasr),
        "acoustic.device": "cpu",
        "decoding.kind": "greedy",
        "ray.cpus": "2",
        "logs.format": "json",
        "logs.file": str(log),
    }
    printed = tmp_path / "printed"
    with own_ray_folder() as ray_folder:
        arguments = [word for key, value in options.items() for word in (f"--{key}", value)]
        assert start(["backfill", *arguments], ray_folder, printed, umask=UMASK).wait(timeout=240) == 3
        of_python = [p for p in ray_folder.rglob("*.log") if p.name.startswith("python-core-") and not p.is_symlink()]
        assert of_python
        assert all(json.loads(line) for path in of_python for line in path.read_text(encoding="utf-8").splitlines())

    text = printed.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    ours = [line for line in lines if "event" in line]
    assert ours == lines, "no line is Ray's"
    assert [line["event"] for line in ours] == ["run_started", "run_finished"]
    assert [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] == ours
    [row, _] = read_rows(tmp_path / "lake")
    end = ours[-1]
    assert {(line["job"], line["run_id"]) for line in ours} == {("backfill", row["run_id"])}
    assert (end["found"], end["ok"], end["failed"], end["failures"]) == (2, 1, 1, {"not_audio (load)": 1})
    assert end["level"] == "WARNING"
    assert end["audio_hours"] > 0
    assert re.search("zyxwand|wrist", text.lower()) is None
    assert row["recording_id"] not in text
    if row["text_raw"]:
        assert row["text_raw"] not in text

    found = list((tmp_path / "lake").rglob("*"))
    assert [path for path in found if path.suffix == ".parquet" and "transcripts" in path.parts]
    assert [path for path in found if path.suffix == ".html"]
    modes = {str(path): stat.S_IMODE(path.stat().st_mode) for path in found}
    assert {path: oct(mode) for path, mode in modes.items() if mode != (0o750 if Path(path).is_dir() else 0o640)} == {}
