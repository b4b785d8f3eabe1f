"""Sound in pieces: together they are a WAV, alone they are no more than was asked for, and memory is bounded."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from dictalake.config.sections import Config, Lake
from dictalake.errors import NotFound
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.records import make_local_version, make_recording_id
from dictalake.review.sound import MIX, Sound, SoundStore, explain
from dictalake.review.sound_routes import MOST_BYTES, find_uncovered
from tests.lake_rows import make_row as make_lake_row
from tests.review_server import Client, serving

STEREO = np.stack([np.arange(1000), -np.arange(1000)]).astype(np.int16)


def make_sound(samples: np.ndarray = STEREO, speech: Any = None) -> Sound:
    return Sound(samples, speech or [[]])


@pytest.mark.parametrize("size", [1, 2, 7, 43, 44, 45, 999])
def test_the_pieces_together_are_the_wav_of_a_channel(size: int) -> None:
    sound = make_sound()
    for channel in (0, 1):
        pieces = [sound.read(str(channel), start, min(start + size, sound.count_bytes())) for start in range(0, 2044, size)]
        assert [len(piece) for piece in pieces[:-1]] == [size] * (len(pieces) - 1)
        heard, rate_hz = soundfile.read(io.BytesIO(b"".join(pieces)), dtype="int16")
        assert rate_hz == 16_000
        assert np.array_equal(heard, STEREO[channel])


def test_the_mean_of_the_channels_can_be_heard() -> None:
    heard, _ = soundfile.read(io.BytesIO(make_sound().read(MIX, 0, 2044)), dtype="int16")
    assert not heard.any()
    alone = make_sound(STEREO[:1])
    assert alone.read(MIX, 0, 2044) == alone.read("0", 0, 2044)


def test_a_wave_is_drawn_in_no_more_columns_than_a_screen_has() -> None:
    drawn = make_sound(np.full((1, 100_000), -16_384, np.int16)).draw()
    assert 1000 < len(drawn[0]) <= 2000
    assert set(drawn[0]) == {50}
    assert make_sound(np.zeros((1, 0), np.int16)).draw() == [[]]


def test_digital_silence_of_all_channels_may_stand_for_a_hole() -> None:
    samples = np.ones((2, 32_000), np.int16)
    samples[0, :20_000] = 0
    assert make_sound(samples).find_silence() == []
    samples[:, 8_000:16_000] = 0
    samples[:, 20_000:21_000] = 0  # too short
    assert make_sound(samples).find_silence() == [[0.5, 1.0]]


def test_speech_without_a_word_near_it_is_named() -> None:
    sound = make_sound(speech=[[[0.0, 2.0], [5.0, 9.0]]])
    words = [{"start_s": 0.2, "end_s": 1.8}, {"start_s": 6.0, "end_s": 7.0}]
    assert find_uncovered(sound, words) == [[5.0, 5.5], [7.5, 9.0]]
    assert find_uncovered(sound, []) == [[0.0, 2.0], [5.0, 9.0]]


class _Store(SoundStore):
    """Gives 6 MB of silence for each recording, and no sound for the recording ``gone``."""

    loads = 0

    def _load(self, row: Any) -> Sound:
        self.loads += 1
        if row["recording_id"] == "gone":
            raise NotFound("gone", "it is gone")
        return make_sound(np.zeros((1, 3_000_000), np.int16))


def make_row(recording_id: str) -> dict[str, Any]:
    return {"recording_id": recording_id, "quality": {"duration_s": 187.5}, "source": {"channels": 1}}


def test_memory_is_bounded_and_what_was_heard_last_stays() -> None:
    store = _Store(Config.model_validate({"review": {"sound_mb": 16}}))
    for recording_id in "abac":
        store.load(make_row(recording_id)).result()
        assert store.count_bytes() <= 16e6
    assert store.loads == 3
    store.load(make_row("a")).result()
    assert store.loads == 3
    store.load(make_row("b")).result()
    assert store.loads == 4
    store.close()


def test_memory_is_bounded_when_many_are_asked_for_at_once() -> None:
    begin = threading.Event()

    class Waiting(_Store):
        def _load(self, row: Any) -> Sound:
            begin.wait()
            return super()._load(row)

    store = Waiting(Config.model_validate({"review": {"sound_mb": 16}}))
    waiting = [store.load(make_row(recording_id)) for recording_id in "abcdef"]
    begin.set()
    assert all(one.result().channels == 1 for one in waiting)
    assert store.count_bytes() <= 16e6
    assert store.loads == 6
    store.load(make_row("f")).result()
    assert store.loads == 6
    store.close()


def test_an_archive_that_is_gone_says_so_and_is_asked_again() -> None:
    store = _Store(Config())
    for _ in range(2):
        error = store.load(make_row("gone")).exception()
        assert error is not None
        assert explain(error).startswith("not_found: ")
    assert store.loads == 2
    store.close()


def test_one_answer_has_a_part_of_a_long_recording(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(1_600_000, np.int16), 16_000)
    uri, version = f"file://{path}", make_local_version(path.stat())
    row = make_lake_row(make_recording_id(uri, version), words=[])
    row["source"] |= {"uri": uri, "version": version, "size_bytes": path.stat().st_size}
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    TranscriptTable(lake).commit(write_staged(make_transcripts([row]), lake))
    with serving(str(lake.uri)) as address:
        client = Client(address).enter()
        asked = {one: client.get(f"/sound/{row['recording_id']}/0.wav", Range=f"bytes={one}") for one in ("0-", "44-47", "9-8")}
        whole = client.get(f"/sound/{row['recording_id']}/0.wav")
        beyond = client.get(f"/sound/{row['recording_id']}/0.wav", Range="bytes=9999999-")
    assert len(asked["0-"].body) == len(whole.body) == MOST_BYTES
    assert asked["0-"].headers["content-range"] == f"bytes 0-{MOST_BYTES - 1}/3200044"
    assert (asked["44-47"].status, asked["44-47"].body) == (206, b"\0\0\0\0")
    assert [asked["9-8"].status, beyond.status] == [416, 416]


def test_pages_that_wait_for_sound_hold_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    row = make_lake_row("0" * 32)
    TranscriptTable(lake).commit(write_staged(make_transcripts([row]), lake))
    begin, asked, load = threading.Event(), threading.Semaphore(0), SoundStore.load

    def load_late(self: SoundStore, row: Any) -> Any:
        asked.release()
        return load(self, row)

    def wait(self: SoundStore, row: Any) -> Sound:
        begin.wait()
        return make_sound()

    monkeypatch.setattr(SoundStore, "load", load_late)
    monkeypatch.setattr(SoundStore, "_load", wait)
    monkeypatch.setattr("dictalake.review.sound_routes.WAIT_S", 1000.0)
    with serving(str(lake.uri)) as address:
        client = Client(address).enter()
        waiting = [threading.Thread(target=client.get, args=(f"/sound/{'0' * 32}/wave.json",)) for _ in range(45)]
        try:
            for one in waiting:
                one.start()
            for _ in range(40):  # as many as the server has threads
                assert asked.acquire(timeout=30)
            assert client.get("/queue").status == 200
        finally:
            begin.set()
            for one in waiting:
                one.join()
