"""Audio files decode to exactly the samples that were written, or fail with a reason."""

from __future__ import annotations

import contextlib
import io

import av
import numpy as np
import pytest

from dictalake.audio.formats.g711 import A_LAW, MU_LAW
from dictalake.audio.formats.read_audio import read_audio
from dictalake.config.sections import Limits
from dictalake.errors import CorruptAudio, NoAudio, TooLong, TranscriptionError, UnsupportedCodec
from dictalake.records import AudioFormat
from tests.unit.audio.formats.archive_samples import encode, make_tone, snr_db

TONE = make_tone(1.0)
STEREO = make_tone(0.5, 44_100, channels=2)


@pytest.mark.parametrize(
    ("container", "subtype", "endian", "stored"),
    [
        ("WAV", "PCM_16", None, AudioFormat("wav", "pcm_s16le", 44_100, 2, 16)),
        ("WAV", "PCM_24", None, AudioFormat("wav", "pcm_s24le", 44_100, 2, 24)),
        ("WAV", "FLOAT", None, AudioFormat("wav", "pcm_f32le", 44_100, 2, 32)),
        ("WAV", "DOUBLE", None, AudioFormat("wav", "pcm_f64le", 44_100, 2, 64)),
        ("WAV", "PCM_16", "BIG", AudioFormat("wav", "pcm_s16be", 44_100, 2, 16)),
        ("RF64", "PCM_16", None, AudioFormat("wav", "pcm_s16le", 44_100, 2, 16)),
        ("W64", "PCM_16", None, AudioFormat("wav", "pcm_s16le", 44_100, 2, 16)),
        ("FLAC", "PCM_16", None, AudioFormat("flac", "flac", 44_100, 2, 16)),
        ("FLAC", "PCM_24", None, AudioFormat("flac", "flac", 44_100, 2, 24)),
        ("AIFF", "PCM_16", None, AudioFormat("aiff", "pcm_s16be", 44_100, 2, 16)),
        ("AU", "PCM_16", None, AudioFormat("au", "pcm_s16be", 44_100, 2, 16)),
        ("CAF", "ALAC_16", None, AudioFormat("caf", "alac", 44_100, 2, 16)),
    ],
)
def test_lossless_files_come_back_sample_for_sample(
    container: str, subtype: str, endian: str | None, stored: AudioFormat
) -> None:
    audio = read_audio(encode(STEREO, 44_100, container, subtype, endian), "r1")
    assert audio.format == stored
    assert audio.dicom is None
    assert audio.samples.dtype == np.float32
    np.testing.assert_array_equal(audio.samples, STEREO.T.astype(np.float32))


@pytest.mark.parametrize(
    ("container", "subtype", "codec", "bits", "least_snr_db"),
    [
        ("WAV", "PCM_U8", "pcm_u8", 8, 30),
        ("WAV", "ULAW", "pcm_mulaw", 8, 30),
        ("WAV", "ALAW", "pcm_alaw", 8, 30),
        ("WAV", "MS_ADPCM", "adpcm_ms", 4, 20),
        ("OGG", "VORBIS", "vorbis", None, 20),
        ("OGG", "OPUS", "opus", None, 15),
        ("MP3", "MPEG_LAYER_III", "mp3", None, 20),
    ],
)
def test_lossy_files_come_back_close(container: str, subtype: str, codec: str, bits: int | None, least_snr_db: float) -> None:
    audio = read_audio(encode(TONE, 16_000, container, subtype), "r1")
    assert audio.format == AudioFormat(container.lower(), codec, 16_000, 1, bits)
    assert abs(audio.samples.shape[1] - 16_000) < 1200
    assert snr_db(TONE[:, 0], audio.samples[0]) > least_snr_db


def test_joined_mp3_files_are_read_to_the_end() -> None:
    first, second = (encode(make_tone(seconds), 16_000, "MP3") for seconds in (1.0, 3.0))
    assert read_audio(first + second, "r1").samples.shape[1] / 16_000 == pytest.approx(4.0, abs=0.2)


def test_g711_tables_agree_with_libsndfile() -> None:
    codes = bytes(range(256))
    for table, law in ((MU_LAW, 7), (A_LAW, 6)):
        head = b"RIFF" + (292).to_bytes(4, "little") + b"WAVEfmt \x10\x00\x00\x00" + law.to_bytes(2, "little") + b"\x01\x00"
        head += (8000).to_bytes(4, "little") * 2 + b"\x01\x00\x08\x00data\x00\x01\x00\x00"
        np.testing.assert_array_equal(table, read_audio(head + codes, "r1").samples[0])


@pytest.mark.parametrize(
    ("demuxer", "encoder", "rate_hz", "container", "codec"),
    [
        ("mp4", "aac", 16_000, "mp4", "aac"),
        ("webm", "libopus", 48_000, "matroska", "opus"),
        ("asf", "wmav2", 16_000, "asf", "wmav2"),
    ],
)
def test_containers_beyond_libsndfile_are_read(demuxer: str, encoder: str, rate_hz: int, container: str, codec: str) -> None:
    tone = make_tone(1.0, rate_hz)
    audio = read_audio(encode_with_ffmpeg(tone, rate_hz, demuxer, encoder), "r1")
    assert audio.format == AudioFormat(container, codec, rate_hz, 1)
    assert abs(audio.samples.shape[1] - rate_hz) < 0.15 * rate_hz
    assert 0.3 < np.abs(audio.samples).max() <= 1.0


def encode_with_ffmpeg(tone: np.ndarray, rate_hz: int, demuxer: str, encoder: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=demuxer) as file:
        stream = file.add_stream(encoder, rate=rate_hz, layout="mono")
        stream.bit_rate = 64_000
        frame = av.AudioFrame.from_ndarray(tone.T.astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = rate_hz
        fifo = av.AudioFifo()
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate_hz)
        for converted in resampler.resample(frame):
            fifo.write(converted)
        while block := fifo.read(stream.codec_context.frame_size or 960, partial=True):
            file.mux(stream.encode(block))
        file.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize(("container", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("MP3", None), ("OGG", "VORBIS")])
def test_truncated_file_gives_what_is_there(container: str, subtype: str | None) -> None:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, (64_000, 1))
    whole = encode(noise, 16_000, container, subtype)
    audio = read_audio(whole[: len(whole) // 2], "r1")
    assert 0.2 * 64_000 < audio.samples.shape[1] < 0.55 * 64_000


@pytest.mark.parametrize("container", ["FLAC", "OGG", "CAF"])
def test_file_cut_off_in_its_header_is_corrupt(container: str) -> None:
    with pytest.raises(CorruptAudio) as caught:
        read_audio(encode(TONE, 16_000, container)[:60], "r1")
    assert caught.value.reason == "corrupt_audio"


def test_damage_in_the_middle_of_a_flac_shortens_nothing() -> None:
    data = bytearray(encode(make_tone(4.0), 16_000, "FLAC"))
    data[len(data) // 3 : len(data) // 3 + 200] = b"\x55" * 200
    with contextlib.suppress(CorruptAudio):  # as good: what must not happen is a shorter recording
        assert read_audio(bytes(data), "r1").samples.shape == (1, 64_000)


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF])
def test_wav_whose_recorder_died_before_writing_the_length_is_read(length: int) -> None:
    data = bytearray(encode(TONE, 16_000, "WAV"))
    data[4:8] = data[40:44] = length.to_bytes(4, "little")
    np.testing.assert_array_equal(read_audio(bytes(data), "r1").samples, TONE.T.astype(np.float32))


@pytest.mark.parametrize("container", ["WAV", "AIFF", "AU"])
def test_file_without_samples_holds_no_audio(container: str) -> None:
    with pytest.raises(NoAudio) as caught:
        read_audio(encode(TONE[:0], 16_000, container), "r1")
    assert caught.value.reason == "no_audio"


def test_unknown_coding_in_a_wav_is_unsupported() -> None:
    data = bytearray(encode(TONE, 16_000, "WAV"))
    data[20:22] = (0x1234).to_bytes(2, "little")
    with pytest.raises(UnsupportedCodec, match="convert it to FLAC or WAV"):
        read_audio(bytes(data), "r1")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_corrupt(value: float) -> None:
    tone = TONE.copy()
    tone[7] = value
    with pytest.raises(CorruptAudio, match="1 of 16000 samples are not finite"):
        read_audio(encode(tone, 16_000, "WAV", "FLOAT"), "r1")


def test_float_beyond_full_scale_is_clipped() -> None:
    samples = read_audio(encode(TONE * 1e30, 16_000, "WAV", "FLOAT"), "r1").samples
    assert (samples.min(), samples.max()) == (-1.0, 1.0)


@pytest.mark.parametrize("rate_hz", [1, 3_999, 400_000])
def test_rate_that_no_speech_has_is_refused(rate_hz: int) -> None:
    with pytest.raises(UnsupportedCodec, match=f"{rate_hz} Hz"):
        read_audio(encode(TONE, rate_hz, "WAV"), "r1")


def test_recording_longer_than_allowed_is_refused() -> None:
    limits = Limits.model_validate({"duration_h": 0.9 / 3600})
    with pytest.raises(TooLong, match="split the recording") as caught:
        read_audio(encode(TONE, 16_000, "FLAC"), "r1", limits)
    assert isinstance(caught.value, TranscriptionError)
    assert caught.value.reason == "too_long"
