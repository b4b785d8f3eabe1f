"""How a known sound becomes a whole file of each container, and where its coded bytes are. The sound is that of
``tests/coded_sound.py``: it tells which second of it one hears.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.coded_sound import RATE_HZ, make_coded_sound
from tests.damaged_audio.muxing import Track, mux, put_index_in_front
from tests.damaged_audio.truth import TOLERANCE_S, DamagedFile
from tests.unit.audio.formats.archive_samples import encode, make_dicom, make_group

FIXTURES = Path(__file__).parents[1] / "fixtures/formats"
A_S, B_S = 8.0, 4.0  # the two sounds that the files are made of


@dataclass(frozen=True)
class Encoding:
    """``reach_s`` is how far the damage of a packet reaches in time: a page of Ogg, the state of a decoder. ``delay_s`` is what
    the file has more than the sound, before it and behind it. ``is_coded``: a changed byte can be noticed, and costs packets.
    ``announced``: the file says how long it is, in front of the sound."""

    make: Callable[[np.ndarray], bytes]
    reach_s: float = 0.4
    delay_s: float = 0.0
    is_coded: bool = True
    announced: bool = True


def _with_soundfile(container: str, subtype: str, endian: str | None = None) -> Callable[[np.ndarray], bytes]:
    return lambda sound: encode(sound, RATE_HZ, container, subtype, endian)


def _with_ffmpeg(muxer: str, codec: str, rate_hz: int = RATE_HZ, bit_rate: int | None = None) -> Callable[[np.ndarray], bytes]:
    return lambda sound: mux(muxer, [Track(sound, codec, rate_hz, bit_rate)])


def _bw64(sound: np.ndarray) -> bytes:
    return b"BW64" + encode(sound, RATE_HZ, "RF64", "PCM_16")[4:]


def _speex(sound: np.ndarray) -> bytes:
    """PyAV has no encoder for it; these were made with FFmpeg's libspeex at quality 10."""
    return (FIXTURES / ("coded-8s.spx" if len(sound) == A_S * RATE_HZ else "coded-4s.spx")).read_bytes()


def _dicom(sound: np.ndarray) -> bytes:
    samples = (np.asarray(sound) * 32767).astype("<i2")
    return make_dicom(make_group(samples.tobytes(), "SS", len(samples), SamplingFrequency=str(RATE_HZ)))


ENCODINGS: dict[str, Encoding] = {
    "wav": Encoding(_with_soundfile("WAV", "PCM_16"), is_coded=False),
    "wav-mulaw": Encoding(_with_soundfile("WAV", "ULAW"), is_coded=False),
    "rf64": Encoding(_with_soundfile("RF64", "PCM_16"), is_coded=False),
    "bw64": Encoding(_bw64, is_coded=False),
    "w64": Encoding(_with_soundfile("W64", "PCM_16"), is_coded=False),
    "aiff": Encoding(_with_soundfile("AIFF", "PCM_16"), is_coded=False),
    "au": Encoding(_with_soundfile("AU", "PCM_16"), is_coded=False),
    "caf": Encoding(_with_soundfile("CAF", "PCM_16"), is_coded=False),
    "dicom": Encoding(_dicom, is_coded=False),
    "flac": Encoding(_with_soundfile("FLAC", "PCM_16")),
    "oga": Encoding(_with_ffmpeg("ogg", "flac"), reach_s=1.3, announced=False),
    "vorbis": Encoding(_with_soundfile("OGG", "VORBIS"), reach_s=1.3, announced=False),
    "opus": Encoding(_with_soundfile("OGG", "OPUS"), reach_s=1.3, announced=False),
    "speex": Encoding(_speex, reach_s=1.3, announced=False),
    "mp3": Encoding(_with_soundfile("MP3", "MPEG_LAYER_III"), delay_s=0.11),
    "adts": Encoding(_with_ffmpeg("adts", "aac", bit_rate=32_000), delay_s=0.13, announced=False),
    "m4a": Encoding(_with_ffmpeg("mp4", "aac", bit_rate=32_000), delay_s=0.13, announced=False),
    "m4a-front": Encoding(lambda sound: put_index_in_front(mux("mp4", [Track(sound, "aac", bit_rate=32_000)])), delay_s=0.13),
    "webm": Encoding(_with_ffmpeg("webm", "libopus", 48_000, 64_000), delay_s=0.05),
    "wma": Encoding(_with_ffmpeg("asf", "wmav2", bit_rate=32_000), reach_s=0.8, delay_s=0.15),
    "amr": Encoding(_with_ffmpeg("amr", "libopencore_amrnb", 8_000, 12_200), delay_s=0.08, announced=False),
}
CODED = [name for name, encoding in ENCODINGS.items() if encoding.is_coded and name != "m4a-front"]


@functools.cache
def make_sounds() -> tuple[np.ndarray, np.ndarray]:
    return make_coded_sound(A_S, 1), make_coded_sound(B_S, 2)


@functools.cache
def make_file(encoding: str, second: bool = False) -> bytes:
    """The whole and undamaged file of the first sound, or of the second."""
    return ENCODINGS[encoding].make(make_sounds()[second])


def make_undamaged() -> Iterator[DamagedFile]:
    for name in ENCODINGS:
        yield make_of_first(name, name, make_file(name), slack_s=TOLERANCE_S + ENCODINGS[name].delay_s)


def make_of_first(name: str, encoding: str, data: bytes, **truth: Any) -> DamagedFile:
    """A file of which all is the first sound."""
    slack_s = TOLERANCE_S + ENCODINGS[encoding].delay_s
    file = DamagedFile(name, data, A_S, (make_sounds()[0],), slack_s=slack_s)
    return replace(file, **{key: frozenset(value) if key == "words" else value for key, value in truth.items()})


@functools.cache
def find_sound(encoding: str, second: bool = False) -> tuple[int, int]:
    """First byte of the coded sound and the byte behind its last."""
    data = make_file(encoding, second)
    if encoding in ("wav", "wav-mulaw", "rf64", "bw64"):
        return data.index(b"data") + 8, len(data)
    plain = {"w64": b"data", "aiff": b"SSND", "caf": b"data", "dicom": b"\x00\x54\x10\x10"}
    behind = {"w64": 24, "aiff": 16, "caf": 16, "dicom": 12}
    if encoding in plain:
        return data.index(plain[encoding]) + behind[encoding], len(data)
    if encoding == "au":
        return int.from_bytes(data[4:8], "big"), len(data)
    with av.open(io.BytesIO(data)) as file:
        stream = file.streams.audio[0]
        packets = [packet for packet in file.demux(stream) if packet.size and packet.pos is not None and packet.pos >= 0]
        first, last = packets[0], packets[-1]
    if encoding in ("m4a", "m4a-front"):
        return first.pos, last.pos + last.size
    return first.pos, len(data)
