"""After a kill the same command resumes a run: every recording has one row, and nothing finished is done again, not even the
files inside an archive object. `make chaos` kills again and again, resumed runs too."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
import zipfile
from collections import Counter
from pathlib import Path

import psutil

from dictalake.config.sections import Config
from dictalake.lake.runs import RunLog
from tests.commands import own_ray_folder, start
from tests.recordings import make_sound, read_rows, write_wav

RECORDINGS, PACKED, LENGTH_S = 24, 12, 4.0  # files, files in one archive object, seconds each
LONGEST_RUN_S = 240.0


def test_a_killed_run_goes_on_and_every_recording_is_there_once(random_lasr: Path, tmp_path: Path) -> None:
    sounds = [make_sound(LENGTH_S, seed) for seed in range(4)]
    for number in range(RECORDINGS):
        write_wav(tmp_path / f"archive/{number:03}.wav", sounds[number % 4])
    (tmp_path / "archive/022.wav").write_bytes(b"this is text\n" * 10)
    with zipfile.ZipFile(tmp_path / "archive/020.zip", "w") as packed:
        for number in range(PACKED):
            packed.write(tmp_path / f"archive/{number:03}.wav", f"{number:03}.wav")
    lake = tmp_path / "lake"
    options = {
        "archive.uri": str(tmp_path / "archive"),
        "lake.uri": str(lake),
        "lake.commit_every_s": "0",
        "acoustic.model": str(random_lasr),
        "acoustic.device": "cpu",
        "decoding.kind": "greedy",
        "ray.cpus": "2",
        "ray.block_rows": "2",
        "ray.block_audio_s": "30",
    }
    command = ["backfill", *(f"--{key}={value}" for key, value in options.items())]

    with own_ray_folder() as ray_folder:
        run = start(command, ray_folder, tmp_path / "killed.txt")
        assert kill_at_version(run, lake, random.randint(1, 6)), "the run was over before it was killed: nothing was shown"
    kept = committed(lake)  # recording_id → the run that committed it
    assert 0 < len(kept) < RECORDINGS + PACKED

    with own_ray_folder() as ray_folder:
        run = start(command, ray_folder, tmp_path / "output.txt")
        assert run.wait(LONGEST_RUN_S) == 3, (tmp_path / "output.txt").read_text()  # one recording is text
    rows = committed(lake)
    assert len(rows) == RECORDINGS + PACKED
    assert {recording_id: rows[recording_id] for recording_id in kept} == kept
    assert len(set(rows.values())) == 2
    events = Counter(RunLog(Config.model_validate({"lake": {"uri": str(lake)}}).lake).read()["event"].to_pylist())
    assert events == {"started": 2, "finished": 1}


def committed(lake: Path) -> dict[str, str]:
    """recording_id → run_id of all rows that a reader sees; no recording may be there twice."""
    rows = read_rows(lake)
    by_id = {row["recording_id"]: row["run_id"] for row in rows}
    assert len(by_id) == len(rows)
    assert all(row["status"] == "ok" or row["error"]["reason"] == "not_audio" for row in rows)
    return by_id


def count_versions(lake: Path) -> int:
    return len(list((lake / "transcripts/_delta_log").glob("*.json")))


def kill_at_version(run: subprocess.Popen[bytes], lake: Path, version: int) -> bool:
    """``kill -9`` of the run's whole process group and all that Ray started, once the table has so many versions.

    False if the run was over before."""
    deadline = time.monotonic() + LONGEST_RUN_S
    while run.poll() is None and count_versions(lake) <= version:
        assert time.monotonic() < deadline, "the run commits nothing"
        time.sleep(0.02)
    if run.poll() is not None:
        return False
    family = psutil.Process(run.pid).children(recursive=True)
    os.killpg(run.pid, signal.SIGKILL)
    for process in family:  # Ray's workers may have process groups of their own
        if process.is_running():
            process.kill()
    psutil.wait_procs(family, timeout=60)
    return run.wait(60) == -signal.SIGKILL
