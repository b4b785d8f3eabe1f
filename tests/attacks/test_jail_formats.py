"""In the jail every kind of file gives what it gives outside: samples, accounts, refusals. No library needs a thread."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import dictalake
from dictalake.audio.formats import ffmpeg_track
from dictalake.audio.formats.codecs import DECODER_OPTIONS, OPEN_OPTIONS, check_codec
from dictalake.audio.formats.read_audio import read_audio
from dictalake.audio.load import AudioLoader, load_audio, make_settings
from dictalake.config.sections import Config
from dictalake.errors import CorruptAudio, TranscriptionError, UnsupportedCodec
from dictalake.records import Recording
from dictalake.sandbox.messages import CallLimits
from dictalake.sandbox.pool import Sandbox
from tests.fuzz import make_seeds
from tests.unit.audio.formats.archive_samples import encode, make_tone

CONFIG = Config.model_validate({"archive": {"uri": "/x", "time_zone": "Europe/Vienna", "patient_fields": ["PatientName"]}})
SETTINGS = {**make_settings(CONFIG), "ending": "", "headerless": None}
DEMO = Path(dictalake.__file__).parent / "assets/demo-archive/recordings"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    opened = Sandbox(load_audio, CallLimits(cpu_s=60.0, memory_mb=2000.0), children=1, imports=("webrtcvad",))
    yield opened
    opened.close()


def outcome(call: Any, data: bytes) -> tuple[str, bytes]:
    try:
        known, waveforms = call(data, "r1", SETTINGS)
    except TranscriptionError as error:
        return f"{error.reason} {error.detail}", b""
    return json.dumps(known, sort_keys=True), waveforms.tobytes()


def test_every_kind_of_file_gives_what_it_gives_outside(sandbox: Sandbox) -> None:
    seeds = make_seeds()
    assert {name: outcome(sandbox.call, data) for name, data in seeds.items()} == {
        name: outcome(load_audio, data) for name, data in seeds.items()
    }


def test_every_recording_of_the_demo_gives_what_it_gives_outside(sandbox: Sandbox) -> None:
    files = [file.read_bytes() for file in sorted(DEMO.rglob("*")) if file.is_file()]
    assert len(files) > 20
    for data in files:
        assert outcome(sandbox.call, data) == outcome(load_audio, data)


def test_the_loader_of_a_run_is_content_with_honest_answers() -> None:
    data = (DEMO / "cardiology/cath-0318.dcm").read_bytes()
    loaded = AudioLoader(CONFIG).load(data, Recording("r1", "cath-0318.dcm", "1", len(data)))
    assert loaded.duration_s > 1
    assert loaded.dicom is not None


def test_ffmpeg_opens_no_decoder_outside_the_list() -> None:
    with pytest.raises(UnsupportedCodec):
        check_codec("r1", "mp3", "mp3_of_somebody_else")
    decoder = av.CodecContext.create("atrac3", "r")
    decoder.options = dict(DECODER_OPTIONS)
    with pytest.raises(av.error.FFmpegError):
        decoder.open()


def test_every_decoder_of_a_track_is_opened_with_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = encode(make_tone(0.5, 16_000), 16_000, "MP3")
    assert read_audio(sound, "r1").format.codec == "mp3"
    monkeypatch.setattr(ffmpeg_track, "DECODER_OPTIONS", {"codec_whitelist": "flac"})
    with pytest.raises(CorruptAudio):
        read_audio(sound, "r1")


def test_ffmpeg_opens_no_demuxer_outside_the_list() -> None:
    sound = bytes(3200)
    av.open(io.BytesIO(sound), format="s16le").close()
    with pytest.raises(av.error.FFmpegError):
        av.open(io.BytesIO(sound), format="s16le", options=OPEN_OPTIONS)


def test_samples_of_every_call_are_int16(sandbox: Sandbox) -> None:
    _, waveforms = sandbox.call(encode(make_tone(0.5, 16_000), 16_000, "WAV"), "r1", SETTINGS)
    assert waveforms.dtype == np.int16
