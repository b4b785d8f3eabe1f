"""Where sound lies in time, and what counts as lost, in containers that say little about it."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from dictalake.audio.formats.read_audio import read_audio
from dictalake.errors import CorruptAudio
from dictalake.records import CLOSED, DecodedAudio
from tests.coded_sound import RATE_HZ, make_coded_sound
from tests.damaged_audio.encodings import make_file
from tests.damaged_audio.muxing import Track, mux

SOUND = make_coded_sound(8.0, 3)


def read(data: bytes) -> DecodedAudio:
    return read_audio(data, "r1")


def length_s(audio: DecodedAudio) -> float:
    return audio.samples.shape[1] / audio.format.sample_rate_hz


def zero_tail(data: bytes, share: float) -> bytes:
    at = int(len(data) * (1 - share))
    return data[:at] + bytes(len(data) - at)


def write_pcm(muxer: str, starts_s: tuple[float, ...], seconds: float = 6.0) -> bytes:
    """Tracks of PCM, each from another second of the clock on."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=muxer) as file:
        streams = [file.add_stream("pcm_s16le", rate=RATE_HZ, layout="mono") for _ in starts_s]
        for at in range(0, int(seconds * RATE_HZ), 1600):
            for stream, start_s in zip(streams, starts_s, strict=True):
                block = (SOUND[at : at + 1600] * 32767).astype(np.int16)[None]
                frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
                frame.sample_rate, frame.time_base = RATE_HZ, Fraction(1, RATE_HZ)
                frame.pts = at + int(start_s * RATE_HZ)
                file.mux(stream.encode(frame))
        for stream in streams:
            file.mux(stream.encode(None))
    return buffer.getvalue()


def test_a_track_that_begins_later_stays_where_it_was() -> None:
    audio = read(write_pcm("matroska", (0.0, 4.0)))
    first, second = audio.samples
    assert audio.account.lost_s in (0.0, None)
    assert np.abs(second[: int(3.9 * RATE_HZ)]).max() == 0
    np.testing.assert_allclose(second[4 * RATE_HZ : 9 * RATE_HZ], first[: 5 * RATE_HZ], atol=1e-4)


def test_parts_with_fewer_tracks_are_silent_in_the_others() -> None:
    audio = read(write_pcm("matroska", (0.0, 0.0)) + write_pcm("matroska", (0.0,)))
    assert audio.samples.shape[0] == 2
    assert length_s(audio) == pytest.approx(12.0, abs=0.1)
    assert np.abs(audio.samples[1, 7 * RATE_HZ :]).max() == 0
    assert "joined" in audio.account.repairs


def test_an_intact_avi_is_whole_and_a_cut_one_says_what_is_missing() -> None:
    whole = write_pcm("avi", (0.0,))
    assert read(whole).account == CLOSED
    cut = read(whole[: len(whole) // 2])
    assert cut.account.repairs == ("cut_end",)
    assert length_s(cut) + (cut.account.lost_s or 0) == pytest.approx(6.0, abs=0.1)


@pytest.mark.parametrize(("muxer", "options"), [("webm", {"live": "1"}), ("mpegts", {})])
def test_a_tail_that_no_header_announces_is_missed(muxer: str, options: dict[str, str]) -> None:
    codec = "libopus" if muxer == "webm" else "aac"
    rate_hz = 48_000 if muxer == "webm" else RATE_HZ
    whole = mux(muxer, [Track(SOUND, codec, rate_hz=rate_hz, bit_rate=64_000)], **options)
    assert read(whole).account.lost_s == 0.0
    with pytest.raises(CorruptAudio, match="cannot be decoded"):
        read(zero_tail(whole, 0.4))


@pytest.mark.parametrize("codec", ["wavpack", "tta"])
def test_frames_with_a_wrong_checksum_are_silence_and_counted(codec: str) -> None:
    whole = mux({"wavpack": "wv", "tta": "tta"}[codec], [Track(np.tile(SOUND, 8), codec)])
    assert read(whole).account == CLOSED
    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 0xFF
    audio = read(bytes(damaged))
    assert length_s(audio) == pytest.approx(64.0, abs=0.05)
    assert audio.account.repairs == ("damaged",)
    assert audio.account.lost_s
    middle = audio.samples[0, int(31.5 * RATE_HZ) : int(32.5 * RATE_HZ)]
    assert np.abs(middle).max() <= np.abs(SOUND).max() * 1.05, "no noise stands for sound"


def test_a_transport_stream_joined_with_another_clock_is_no_hole_of_hours() -> None:
    first = mux("mpegts", [Track(SOUND, "aac", bit_rate=64_000)])
    later = mux("mpegts", [Track(SOUND, "aac", bit_rate=64_000)], output_ts_offset="7200")
    audio = read(first + later)
    assert length_s(audio) == pytest.approx(16.0, abs=0.5)
    assert "clock_reset" in audio.account.repairs


def test_zeros_behind_a_complete_mp3_are_no_sound() -> None:
    whole = make_file("mp3")
    audio = read(whole + bytes(4096))
    assert audio.account == CLOSED.also("trailing_bytes")
    assert length_s(audio) == pytest.approx(length_s(read(whole)), abs=0.05)  # one frame


def test_ogg_of_a_live_stream_lost_nothing_before_it_began() -> None:
    """Servers send the headers, and then the pages of the moment."""
    from dictalake.audio.formats import ogg_pages

    whole = make_file("vorbis")
    pages, at = [], 0
    while at < len(whole):
        end, _ = ogg_pages._find_page_end(whole, at)
        pages.append(bytearray(whole[at:end]))
        at = end
    hour = 3600 * RATE_HZ
    for page in pages:
        granule = int.from_bytes(page[6:14], "little", signed=True)
        if granule > 0:
            page[6:14] = (granule + hour).to_bytes(8, "little")
            page[18:22] = (int.from_bytes(page[18:22], "little") + 5000).to_bytes(4, "little")
            page[22:26] = bytes(4)
            page[22:26] = ogg_pages._compute_crc(bytes(page))
    audio = read(b"".join(bytes(page) for page in pages))
    assert length_s(audio) == pytest.approx(8.0, abs=0.2)
    assert audio.account.lost_s == 0.0
