"""Budgets: what one archive object may cost a run, and what all decoders of a machine together may take of its memory."""

from __future__ import annotations

import itertools
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dictalake.archive import budget as budgets
from dictalake.archive.listing import list_recordings
from dictalake.archive.load_recording import load_recording
from dictalake.audio import load as audio
from dictalake.audio.load import AudioLoader, LoadedAudio
from dictalake.config.sections import Config
from dictalake.errors import DecoderCrashed, LoadError, TooLarge
from dictalake.records import Recording
from dictalake.sandbox import messages, node_slot
from dictalake.sandbox.messages import CallLimits
from dictalake.sandbox.pool import Sandbox
from dictalake.workflow import columns
from dictalake.workflow.plan import Node, Resources, make_plan, plan_heavy
from dictalake.workflow.stages.load import Load
from tests.archives_of_files import make_zip
from tests.unit.audio.formats.archive_samples import encode, make_tone

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight files of 0.9 seconds, and one recording that is in no archive object."""
    tone = encode(make_tone(0.9), 16_000, "FLAC")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive/week.zip").write_bytes(make_zip({f"{n}.flac": tone for n in range(8)}))
    (tmp_path / "archive/plain.flac").write_bytes(tone)
    return tmp_path / "archive"


def load(folder: Path, done: tuple[str, ...] = (), **limits: Any) -> list[dict[str, Any]]:
    from dataclasses import replace

    config = Config.model_validate({"archive": {"uri": str(folder)}, "limits": limits})
    recordings = [replace(recording, done_members=done) for recording in list_recordings(config.archive)]
    return pa.concat_tables(Load(config)(columns.recordings_to_table(recordings))).to_pylist()


def reasons(rows: list[dict[str, Any]]) -> list[str]:
    return [row["error"]["reason"] if row["error"] else "ok" for row in rows]


def test_files_beyond_the_hours_of_one_object_are_rows_and_the_others_are_kept(folder: Path) -> None:
    rows = load(folder, archive_h=2.5 / 3600)
    assert len(rows) == 9, "every file has its row"
    assert {row["archive_rows"] for row in rows if row["archive_id"]} == {8}
    good = reasons(rows).count("ok")
    # Three files make the budget, and at most as many as are decoded at once are begun before it is known.
    assert 1 + 3 <= good <= 1 + 3 + 3
    assert reasons(rows).count("archive_over_budget") == 9 - good
    details = {row["error"]["detail"] for row in rows if row["error"]}
    assert len(details) == 1
    assert "hours of sound of limits.archive_h; split the archive, or raise the limit" in details.pop()


def test_a_retry_with_a_higher_limit_reads_only_what_is_missing(folder: Path) -> None:
    rows = load(folder, archive_h=2.5 / 3600)
    done = tuple(row["recording_id"] for row in rows if not row["error"])
    again = load(folder, done, archive_h=1)
    assert reasons(again) == ["ok"] * len(again)
    assert {row["recording_id"] for row in again if row["archive_id"]} == {row["recording_id"] for row in rows if row["error"]}


def test_files_beyond_the_seconds_of_one_object_are_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call of a child takes a second: one to unpack a file, one to decode it."""
    ticks: dict[int, Any] = defaultdict(itertools.count)
    monkeypatch.setattr(budgets, "processor_s", lambda: next(ticks[threading.get_ident()]))
    rows = load(folder, archive_s=11)
    assert len(rows) == 9
    assert "archive_over_budget" in reasons(rows)
    assert "ok" in reasons([row for row in rows if row["archive_id"]])
    detail = next(row["error"]["detail"] for row in rows if row["error"])
    assert "the 11 processor seconds of limits.archive_s" in detail


def test_processor_seconds_of_decoders_are_counted_and_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.model_validate({"ray": {"load_memory_mb": 100}, "quality": {"vad": "none"}})
    loader, sound = AudioLoader(config), encode(make_tone(600), 16_000, "FLAC")
    loader.load(sound, RECORDING)  # starts a child
    wait = 2.0
    monkeypatch.setattr(audio, "hold_slot", lambda name, wait_s: time.sleep(wait) or node_slot.hold_slot(name, wait_s))
    monkeypatch.setattr(loader, "_first_try", CallLimits(300.0, 0.001))  # it needs its place on the machine
    spent = budgets.ObjectBudget(config.limits)
    with spent.working():
        loader.load(sound, RECORDING)
    assert 0.01 < spent._worked_s < wait
    spent.require("r1")


def test_commands_that_read_one_after_the_other_keep_the_same_budget(folder: Path) -> None:
    config = Config.model_validate({"archive": {"uri": str(folder)}, "limits": {"archive_h": 2.5 / 3600}})
    (packed,) = [recording for recording in list_recordings(config.archive) if recording.uri.endswith(".zip")]
    loaded = [found for _, found in load_recording(packed, config, AudioLoader(config))]
    assert [isinstance(found, LoadedAudio) for found in loaded] == [True] * 3 + [False] * 5
    assert {found.reason for found in loaded if not isinstance(found, LoadedAudio)} == {"archive_over_budget"}


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> Config:
    """A worker whose decoders have a share of 48 MB each."""
    monkeypatch.setitem(audio._LEAST_SHARE_MB, "none", 48.0)
    return Config.model_validate({"ray": {"load_memory_mb": 100}, "quality": {"vad": "none"}, "limits": {"decode_mb": 400}})


LONG = encode(np.zeros(16_000 * 900, dtype=np.float32), 16_000, "FLAC")  # 29 MB of samples; its decoder takes 60
RECORDING = Recording("r1", "gs://a/long.flac", "1", len(LONG))


def test_what_needs_more_than_its_share_is_decoded_alone_to_the_same_samples(
    little_memory: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[str] = []
    monkeypatch.setattr(audio, "hold_slot", lambda name, wait_s: held.append(name) or node_slot.hold_slot(name, wait_s))
    alone = AudioLoader(little_memory).load(LONG, RECORDING)
    assert held == [audio.HEAVY]
    at_once = AudioLoader(Config.model_validate({"quality": {"vad": "none"}})).load(LONG, RECORDING)
    assert held == [audio.HEAVY], "with the default share it needs no place of its own"
    np.testing.assert_array_equal(alone.waveforms, at_once.waveforms)
    assert alone.quality == at_once.quality
    heavy = audio._open_sandbox(CallLimits(300.0, 400.0), 1, "auto", "none")
    assert heavy._idle == [], "its memory is for the next one"


def test_many_that_need_much_memory_never_have_it_at_once(little_memory: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many threads as workers have; the place is the same for all processes of this user."""
    inside, most = 0, 0
    call = Sandbox.call

    def watched(sandbox: Sandbox, *arguments: Any) -> Any:
        nonlocal inside, most
        if sandbox._limits.memory_mb < 400:
            raise TooLarge("r1", "")
        inside += 1
        most = max(most, inside)
        try:
            return call(sandbox, *arguments)
        finally:
            inside -= 1

    monkeypatch.setattr(Sandbox, "call", watched)
    short = encode(make_tone(0.5), 16_000, "FLAC")
    loader = AudioLoader(little_memory)
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: loader.load(short, RECORDING), range(4)))
    assert [one.duration_s for one in loaded] == [0.5] * 4
    assert most == 1


def test_a_place_that_others_keep_is_waited_for_within_bounds(little_memory: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "_WAITS", 1e-4)
    needs = r"no_memory_slot.*it needs more memory than the 48 MB of its decoder's share.* others had the one place"
    with node_slot.hold_slot(audio.HEAVY, 60), pytest.raises(LoadError, match=needs):
        AudioLoader(little_memory).load(LONG, RECORDING)
    monkeypatch.setattr(audio, "_WAITS", 4)  # another run of these tests may be at work
    assert AudioLoader(little_memory).load(LONG, RECORDING).duration_s == 900


def test_the_place_of_a_process_that_was_killed_is_free() -> None:
    program = "from dictalake.sandbox.node_slot import *\nwith hold_slot('test', 9): print(1, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(TimeoutError), node_slot.hold_slot("test", 0):
            pass
        holder.kill()
    with node_slot.hold_slot("test", 0):
        pass


@pytest.mark.parametrize("trap", ["open", "link", "file"])
def test_a_folder_for_places_that_others_can_write_to_is_not_used_and_stops_nobody(
    trap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / f"dictalake-{os.getuid()}"
    if trap == "link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "theirs")
    elif trap == "file":
        folder.write_bytes(b"")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    assert node_slot.find_folder() == tmp_path / "home" / ".cache" / "dictalake"
    with node_slot.hold_slot("test", 0), pytest.raises(TimeoutError), node_slot.hold_slot("test", 0):
        pass
    assert (tmp_path / "home" / ".cache" / "dictalake" / "test.lock").exists()


def test_without_any_folder_a_process_is_alone_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", fail)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("HOME", "/proc/not-there")
    assert node_slot.find_folder() is None
    for _ in range(2):
        with node_slot.hold_slot("test", 0), pytest.raises(TimeoutError), node_slot.hold_slot("test", 0):
            pass


def test_a_place_is_free_again_though_a_copy_of_its_lock_is_open() -> None:
    with node_slot.hold_slot("test", 60):
        copies = [os.dup(lock) for lock in node_slot._held]
    with node_slot.hold_slot("test", 0):
        pass
    for copy in copies:
        os.close(copy)


def test_a_fork_neither_keeps_nor_gives_back_its_parents_place() -> None:
    program = (
        "import os, time\nfrom dictalake.sandbox.node_slot import *\n"
        "with hold_slot('test', 60):\n    if os.fork() == 0:\n        raise SystemExit\n    assert os.wait()[1] == 0\n"
        "    if os.fork() == 0:\n        print(os.getpid(), flush=True)\n        time.sleep(600)\n    time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        fork, folder = int(holder.stdout.readline()), node_slot.find_folder()
        assert folder is not None
        assert [name for name in os.listdir(node_slot.find_queue(folder, "test")) if f"-{holder.pid}-" in name], (
            "its fork left it the ticket"
        )
        with pytest.raises(TimeoutError), node_slot.hold_slot("test", 0):
            pass
        holder.kill()
        holder.wait()
        with node_slot.hold_slot("test", 5):
            pass
        os.kill(fork, signal.SIGKILL)


def test_a_decoder_that_dies_in_little_memory_is_tried_in_much(little_memory: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that gets no memory may abort. A decoder that lies has been taken over, and gets no place for that."""
    call, crash = Sandbox.call, DecoderCrashed("r1", "SIGABRT")

    def die_in_little(sandbox: Sandbox, *arguments: Any) -> Any:
        if sandbox._limits.memory_mb < 400:
            raise crash
        return call(sandbox, *arguments)

    monkeypatch.setattr(Sandbox, "call", die_in_little)
    loader, sound = AudioLoader(little_memory), encode(make_tone(0.5), 16_000, "FLAC")
    with pytest.raises(DecoderCrashed):
        loader.load(sound, RECORDING)
    crash.ended = True
    assert loader.load(sound, RECORDING).duration_s == 0.5
    monkeypatch.setattr(audio, "_WAITS", 0)
    with node_slot.hold_slot(audio.HEAVY, 60), pytest.raises(LoadError, match="perhaps because it needed more memory, and"):
        loader.load(sound, RECORDING)


def test_a_defect_that_may_be_for_want_of_memory_is_not_believed_on_the_first_try(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("no memory for a buffer")

    monkeypatch.setattr(audio, "_load_audio", fail)
    for is_tight, expected in ((True, TooLarge), (False, RuntimeError)):
        monkeypatch.setattr(audio, "is_memory_tight", lambda is_tight=is_tight: is_tight)
        with pytest.raises(expected):
            audio.load_audio(b"", "r1", {"is_first_try": True})
    with pytest.raises(RuntimeError):
        audio.load_audio(b"", "r1", {})


def test_damage_that_may_be_for_want_of_memory_is_not_believed_on_the_first_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg calls a packet damaged for which it got no memory."""
    settings = {**audio.make_settings(Config()), "vad": "none", "ending": "", "headerless": None, "is_first_try": True}
    whole, damaged = encode(make_tone(0.5), 16_000, "FLAC"), encode(make_tone(0.5), 16_000, "WAV")[:-2000]
    monkeypatch.setattr(audio, "is_memory_tight", lambda: False)
    assert audio.load_audio(damaged, "r1", settings)[0]["quality"]["repairs"]
    with pytest.raises(LoadError, match="not_audio"):
        audio.load_audio(b"x" * 100, "r1", settings)
    monkeypatch.setattr(audio, "is_memory_tight", lambda: True)
    assert audio.load_audio(whole, "r1", settings)[0]["quality"]["lost_s"] == 0
    for data in (damaged, b"x" * 100):
        with pytest.raises(TooLarge):
            audio.load_audio(data, "r1", settings)
        assert audio.load_audio(damaged, "r1", {**settings, "is_first_try": False})[0]["quality"]["repairs"]


def test_a_long_recordings_samples_lie_in_a_file_on_their_way_through_a_worker() -> None:
    ours, theirs = socket.socketpair()
    sent = np.arange(messages.MOST_IN_MEMORY // 2 + 8, dtype=np.int16)
    with ours, theirs, ThreadPoolExecutor(1) as pool:
        pool.submit(messages.send_answer, theirs, b"{}", sent.view(np.uint8).data)
        _, data = messages.receive_answer(ours, 2 * sent.nbytes)
    assert isinstance(data.base.obj, mmap.mmap)
    waveforms = data.view(np.int16).reshape(2, -1)
    table = columns.append_waveforms(columns.recordings_to_table([RECORDING]), [list(waveforms)])
    left, right = columns.read_waveforms(table, 0)
    assert left.ctypes.data == waveforms.ctypes.data, "copied into memory"
    np.testing.assert_array_equal(np.concatenate([left, right]), sent)


def test_a_node_that_cannot_hold_the_worst_recording_is_named_and_keeps_none_of_its_memory() -> None:
    config = Config.model_validate({"acoustic": {"device": "cpu", "actors": 1}})
    small, large = Node(4, 0, 6_000, "10.0.0.1"), Node(16, 0, 40_000, "10.0.0.2")
    resources = Resources(20, 0, (small, large), 46_000)
    heavy = plan_heavy(config, make_plan(config, resources), resources)
    assert (heavy.memory_mb, heavy.nodes) == (4096, ("10.0.0.1", "10.0.0.2"))
    alone = Resources(4, 0, (small,), 6_000)
    heavy = plan_heavy(config, make_plan(config, alone), alone)
    assert heavy.nodes == (), "the stages need 2,700 MB of it"
    assert heavy.warning is not None
    assert "limits.decode_mb = 4096 MB beside the workers, and 1 of 1 nodes cannot hold that" in heavy.warning
    assert "10.0.0.1 6000" in heavy.warning
    enough = Config.model_validate({"limits": {"decode_mb": 200}})
    assert plan_heavy(enough, make_plan(enough, alone), alone) == (0.0, (), None)


def test_the_shares_of_all_decoders_fit_into_what_is_reserved_for_their_worker() -> None:
    for reserved_mb in (800, 1000, 1500, 4000):
        config = Config.model_validate({"ray": {"load_memory_mb": reserved_mb}})
        asked = audio._WORKER_MB + audio.DECODERS * (audio._IDLE_MB + audio.share_memory(config))
        assert asked <= reserved_mb
