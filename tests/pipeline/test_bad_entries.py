"""A folder with every kind of bad entry beside twenty good recordings: twenty good rows, and rows or counts for the rest. The
model is a stub; what lists and reads is real."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dictalake.archive import folders
from dictalake.cli.main import run_command
from dictalake.errors import ConfigError
from dictalake.workflow.cluster import Resources
from tests.recordings import make_sound, read_rows, write_wav

CANARY = "Zyxwandelina"


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "archive"
    for seed in range(18):
        write_wav(root / f"{'ward' if seed % 2 else 'day/1'}/{seed}.wav", make_sound(0.6, seed))
    write_wav(root / "a.zip#b.wav", make_sound(0.6, 18))
    odd = write_wav(root / "odd.wav", make_sound(0.6, 19))
    odd.rename(os.fsdecode(os.fsencode(root) + b"/\x80-odd.wav"))
    outside = write_wav(tmp_path / f"elsewhere/{CANARY}.wav", make_sound(0.6, 20)).parent
    links = {
        "00-current": "ward",
        "ward/again.wav": "1.wav",
        "ward/up": "..",
        f"{CANARY}.wav": outside / f"{CANARY}.wav",
        "elsewhere": outside,
        "zero.wav": "/dev/zero",
        "kmsg.wav": "/proc/kmsg",
        "self": "/proc/self",
        "gone.wav": "nowhere.wav",
        "in-file.wav": "ward/1.wav/x",
        "itself": "itself",
        "one": "other",
        "other": "one",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe.wav")
    before = Path.cwd()
    os.chdir(root)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.wav")
    os.chdir(before)
    (root / "empty.wav").touch()
    (root / "letter.wav").write_bytes(b"Dear colleague, thank you for referring this patient.\n" * 20)
    (root / "refused").mkdir()
    _make_deep(root)
    yield root
    subprocess.run(["rm", "-rf", root], check=True)  # deeper than Python removes


def _make_deep(root: Path) -> None:
    """1,100 folders in each other, below which the system takes no path any more."""
    here = os.open(root, os.O_RDONLY)
    for name in ["d"] * 1_100 + ["n" * 200] * 12:
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)


def test_each_bad_entry_is_a_row_or_a_count_and_the_others_are_good_rows(
    stub_stages: None,
    two_cpus: Resources,
    random_lasr: Path,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    real = folders.open_folder

    def refuse(root: str, below: str) -> int:  # root may read everything, and tests often run as root
        if below == "refused":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(root, below)

    monkeypatch.setattr(folders, "open_folder", refuse)
    lake = tmp_path / "lake"
    keys = [str(archive), str(lake), "--acoustic.model", str(random_lasr), "--acoustic.device", "cpu"]
    keys += ["--acoustic.dtype", "float32", "--decoding.kind", "greedy", "--report.write", "false"]
    assert run_command("backfill", [*keys, "--format", "json"]) == 3
    summary = json.loads(capfd.readouterr().out)
    assert (summary["ok"], summary["failed"]) == (20, 7)
    assert summary["failures"] == {
        "link_loop (load)": 3,
        "not_found (load)": 2,
        "empty_object (load)": 1,
        "not_audio (load)": 1,
    }
    assert summary["aliases"] == 3
    assert summary["left_out"] == {"link_outside": 5, "special_file": 2}
    assert summary["unread_folders"] == {"name_too_long": 1, "no_permission": 1}
    rows = read_rows(lake)
    assert len(rows) == len({row["recording_id"] for row in rows}) == 27
    assert CANARY not in str(rows)
    assert {"\\udc80-odd.wav", "a.zip#b.wav"} <= {Path(row["source"]["uri"]).name for row in rows if row["status"] == "ok"}

    # The next night has nothing to do; that two folders could not be read is said each time.
    assert run_command("nightly", keys) == 3
    out, err = capfd.readouterr()
    assert "0 transcribed, folders that could not be read: 2 (name_too_long 1, no_permission 1)" in out
    assert "entries left out: 7 (link_outside 5, special_file 2)" in out
    assert CANARY not in out + err
    monkeypatch.setattr(folders, "open_folder", real)
    subprocess.run(["rm", "-rf", archive / "d"], check=True)
    assert run_command("nightly", keys) == 0
    (line,) = capfd.readouterr().out.splitlines()
    assert "0 transcribed, entries left out: 7 (link_outside 5, special_file 2)" in line
    assert len(read_rows(lake)) == 27


def test_a_line_that_names_another_place_is_a_row_and_a_manifest_of_others_alone_ends_the_run(
    stub_stages: None, two_cpus: Resources, random_lasr: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_wav(tmp_path / "archive/a.wav", make_sound(0.6, 1))
    write_wav(tmp_path / f"elsewhere/{CANARY}.wav", make_sound(0.6, 2))
    manifest, lake = tmp_path / "archive/list.csv", tmp_path / "lake"
    manifest.write_text(f"uri\na.wav\n{tmp_path}/elsewhere/{CANARY}.wav\ndata://,x\nembedded:../../errors.py\n")
    keys = ["--archive.manifest", str(manifest), "--lake.uri", str(lake), "--acoustic.model", str(random_lasr)]
    keys += ["--acoustic.device", "cpu", "--decoding.kind", "greedy", "--report.write", "false"]
    assert run_command("nightly", keys) == 3
    rows = read_rows(lake)
    reasons = sorted((row["error"] or {}).get("reason", "ok") for row in rows)
    assert reasons == ["bad_manifest_line", "bad_manifest_line", "not_allowed", "ok"]
    # Once it is allowed, the object is a recording of its own.
    assert run_command("nightly", [*keys, "--archive.allowed", f"[{tmp_path}]"]) == 0
    assert sorted((row["error"] or {}).get("reason", "ok") for row in read_rows(lake))[-2:] == ["ok", "ok"]
    manifest.write_text(f"uri\n{tmp_path}/elsewhere/{CANARY}.wav\n")
    with pytest.raises(ConfigError, match=r"outside archive\.allowed, in \[/[^/]*\]; if you trust it") as caught:
        run_command("nightly", keys)
    out, err = capfd.readouterr()
    assert CANARY not in str(caught.value)
    assert CANARY not in out + err
