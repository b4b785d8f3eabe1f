"""Concurrent whole runs on one lake, as processes: started together, or one sleeps while another does its work."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil

from dictalake.config.sections import Lake
from dictalake.lake.claims import LeaseStore
from dictalake.lake.runs import RunLog
from tests.commands import own_ray_folder, start
from tests.recordings import make_sound, read_rows, write_wav

RECORDINGS = 16
LONGEST_RUN_S = 300.0


def make_command(archive: Path, lake: Path, model: Path, job: str = "backfill", **options: str) -> list[str]:
    keys = {
        "archive.uri": str(archive),
        "lake.uri": str(lake),
        "lake.commit_every_s": "0",
        "lake.lease_s": "6",
        "acoustic.model": str(model),
        "acoustic.device": "cpu",
        "decoding.kind": "greedy",
        "ray.cpus": "2",
        "ray.block_rows": "2",
        "ray.block_audio_s": "15",
    }
    keys |= {name.replace("__", "."): value for name, value in options.items()}
    return [job, *(f"--{key}={value}" for key, value in keys.items())]


def write_archive(folder: Path, seconds: float) -> Path:
    sounds = [make_sound(seconds, seed) for seed in range(4)]
    for number in range(RECORDINGS):
        write_wav(folder / f"{number:03}.wav", sounds[number % 4])
    return folder


def assert_each_is_there_once(lake: Path) -> Counter[str]:
    """How many rows each run wrote."""
    rows = read_rows(lake)
    assert len(rows) == RECORDINGS == len({row["recording_id"] for row in rows})
    return Counter(row["run_id"] for row in rows)


def test_two_runs_started_together_do_the_work_once(random_lasr: Path, tmp_path: Path) -> None:
    archive, lake = write_archive(tmp_path / "archive", 2.0), tmp_path / "lake"
    with own_ray_folder() as first_folder, own_ray_folder() as second_folder:
        runs = [
            start(make_command(archive, lake, random_lasr, job), folder, tmp_path / f"{job}.txt")
            for job, folder in (("backfill", first_folder), ("nightly", second_folder))
        ]
        assert [run.wait(LONGEST_RUN_S) for run in runs] == [0, 0]
    assert len(assert_each_is_there_once(lake)) == 1  # the other left all of it to it, or found it done
    records = RunLog(Lake.model_validate({"uri": str(lake)})).read().to_pylist()
    claimed = [record["claimed"] + record["skipped"] for record in records if record["event"] == "started"]
    assert sorted(claimed) == [0, RECORDINGS]
    assert LeaseStore(Lake.model_validate({"uri": str(lake)})).read() == []


def test_a_run_that_lost_its_heartbeat_wakes_up_and_writes_nothing_twice(random_lasr: Path, tmp_path: Path) -> None:
    archive, lake = write_archive(tmp_path / "archive", 6.0), tmp_path / "lake"
    command = make_command(archive, lake, random_lasr)
    with own_ray_folder() as first_folder, own_ray_folder() as second_folder:
        asleep = start(command, first_folder, tmp_path / "first.txt")
        wait_for_rows(asleep, lake)
        family = signal_family(asleep, signal.SIGSTOP)
        before = len(read_rows(lake))
        assert 0 < before < RECORDINGS
        second = start(command, second_folder, tmp_path / "second.txt")
        assert second.wait(LONGEST_RUN_S) == 0, (tmp_path / "second.txt").read_text()
        assert len(read_rows(lake)) == RECORDINGS
        for process in family:
            process.send_signal(signal.SIGCONT)
        assert asleep.wait(LONGEST_RUN_S) == 0, (tmp_path / "first.txt").read_text()
    by_run = assert_each_is_there_once(lake)
    assert sorted(by_run.values()) == sorted([before, RECORDINGS - before])


def wait_for_rows(run: subprocess.Popen[bytes], lake: Path) -> None:
    deadline = time.monotonic() + LONGEST_RUN_S
    while not any((lake / "transcripts/_delta_log").glob("*[1-9].json")):
        assert run.poll() is None, "it was over before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def signal_family(run: subprocess.Popen[bytes], number: int) -> list[psutil.Process]:
    """Stops the driver first, then all that Ray started."""
    os.kill(run.pid, number)
    family = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
    for process in family[1:]:
        process.send_signal(number)
    return family


def wait_for_ray(run: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Waits until Ray is starting; returns its first process."""
    deadline = time.monotonic() + LONGEST_RUN_S
    while not (started := [one for one in psutil.Process(run.pid).children() if "gcs_server" in one.name()]):
        assert run.poll() is None, "it was over before Ray started"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return started


def test_a_run_that_is_told_to_end_commits_what_is_finished_and_gives_its_claim_back(random_lasr: Path, tmp_path: Path) -> None:
    """The signals go to the whole process group, as those of a terminal and of timeout(1)."""
    archive, lake = write_archive(tmp_path / "archive", 6.0), tmp_path / "lake"
    command, there = make_command(archive, lake, random_lasr), Lake.model_validate({"uri": str(lake)})
    with own_ray_folder() as folder:
        run = start(command, folder, tmp_path / "output.txt")
        wait_for_rows(run, lake)
        os.killpg(run.pid, signal.SIGTERM)
        assert run.wait(LONGEST_RUN_S) == 128 + signal.SIGTERM, (tmp_path / "output.txt").read_text()
    assert LeaseStore(there).read() == []
    (_, stopped) = RunLog(there).read().to_pylist()
    assert (stopped["event"], stopped["ok"]) == ("stopped", len(read_rows(lake)))
    assert stopped["ok"] > 0
    with own_ray_folder() as folder:
        run = start(command, folder, tmp_path / "output.txt")
        of_ray = wait_for_ray(run)
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(LONGEST_RUN_S) == 128 + signal.SIGINT, (tmp_path / "output.txt").read_text()
        assert psutil.wait_procs(of_ray, timeout=60)[1] == []
    assert LeaseStore(there).read() == []
    assert [record["event"] for record in RunLog(there).read().to_pylist()] == ["started", "stopped"] * 2
    assert len(list(lake.glob("lineage/*.abort.json"))) == 2
