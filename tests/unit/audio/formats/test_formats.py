"""Every container and codec of docs/formats.md: known speech in, the same speech out, as near as the codec allows."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from dictalake.audio.formats.read_audio import read_audio
from dictalake.errors import TranscriptionError
from tests.unit.audio.formats.archive_samples import encode

FIXTURES = Path(__file__).parents[3] / "fixtures/formats"
SPEECH, _ = soundfile.read(FIXTURES / "speech.wav")


def speech_at(rate_hz: int) -> np.ndarray:
    """float64 ``(frames,)``."""
    import soxr

    return np.asarray(soxr.resample(SPEECH, 16_000, rate_hz)).clip(-0.99, 0.99)


def with_soundfile(container: str, subtype: str, rate_hz: int = 16_000) -> bytes:
    return encode(speech_at(rate_hz), rate_hz, container, subtype)


def with_ffmpeg(muxer: str, encoder: str, rate_hz: int, bit_rate: int | None = None) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=muxer) as file:
        stream = file.add_stream(encoder, rate=rate_hz, layout="mono")
        if bit_rate:
            stream.bit_rate = bit_rate
        for packet in encode_packets(stream, rate_hz):
            file.mux(packet)
    return buffer.getvalue()


def encode_packets(stream: av.AudioStream, rate_hz: int) -> list[av.Packet]:
    frame = av.AudioFrame.from_ndarray(speech_at(rate_hz)[None].astype(np.float32), format="fltp", layout="mono")
    frame.sample_rate = rate_hz
    fifo, packets = av.AudioFifo(), []
    for converted in av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate_hz).resample(frame):
        fifo.write(converted)
    size = stream.codec_context.frame_size or 960
    while block := fifo.read(size, partial=stream.codec_context.name not in ("g723_1", "libopencore_amrnb")):
        packets += stream.encode(block)
    return packets + stream.encode(None)


def g723_1_frames() -> bytes:
    """30 ms each, 24 bytes, at 8 kHz."""
    with av.open(io.BytesIO(), "w", format="wav") as file:
        stream = file.add_stream("g723_1", rate=8_000, layout="mono")
        stream.bit_rate = 6_300
        return b"".join(bytes(packet) for packet in encode_packets(stream, 8_000))


def dss(codec: int, payload: bytes, blocks_of_header: int = 2) -> bytes:
    """A DSS file as its description has it: header blocks, then blocks of 512 bytes, six of them a header."""
    header = bytearray(512 * blocks_of_header)
    header[:4] = bytes([blocks_of_header]) + b"dss"
    header[0x26:0x32] = header[0x32:0x3E] = b"260102030405"  # recorded from, to: YYMMDDHHMMSS
    header[0x2A4] = codec
    blocks = [payload[at : at + 506].ljust(506, b"\0") for at in range(0, len(payload), 506)]
    return bytes(header) + b"".join(bytes(6) + block for block in blocks)


def random_bytes(length: int) -> bytes:
    return np.random.default_rng(0).integers(0, 256, length, dtype=np.uint8).tobytes()


def grundig_dss(blocks: int) -> bytes:
    """Frames of 41 bytes in blocks of 512, the first six a header: where the first frame starts, and how many do."""
    payload = random_bytes(506 * blocks)
    written = b"\x06dss" + bytes(508 + 512 * 5)
    for index in range(blocks):
        starts = [at for at in range(0, 506 * blocks - 40, 41) if index * 506 <= at < (index + 1) * 506]
        offset_bits = (starts[0] - index * 506) * 8
        word, within = divmod(offset_bits, 16)
        place = ((word + 3) << 4 | within) << 4
        head = place.to_bytes(2, "little") + bytes([len(starts), 0, 0, 0])
        written += head + payload[index * 506 : (index + 1) * 506]
    return written


def truespeech(frames: int) -> bytes:
    """A WAV of format tag 0x22: 32 bytes hold 240 samples at 8 kHz."""
    body = random_bytes(32 * frames)
    extra = (1).to_bytes(2, "little") + (240).to_bytes(2, "little") + bytes(28)
    form = b"".join(
        value.to_bytes(size, "little") for value, size in ((0x22, 2), (1, 2), (8000, 4), (1067, 4), (32, 2), (1, 2), (32, 2))
    )
    chunks = b"fmt " + (len(form) + 32).to_bytes(4, "little") + form + extra
    chunks += b"data" + len(body).to_bytes(4, "little") + body
    return b"RIFF" + (4 + len(chunks)).to_bytes(4, "little") + b"WAVE" + chunks


def aligned_snr_db(wanted: np.ndarray, got: np.ndarray) -> float:
    """At the delay and gain that fit best: codecs shift, and some scale; what they add at the end is left out."""
    got = got[: len(wanted)]
    size = len(wanted) + len(got)
    correlation = np.fft.irfft(np.fft.rfft(got, size) * np.conj(np.fft.rfft(wanted, size)), size)
    energy = float(np.sum(wanted**2)) * float(np.sum(np.square(got, dtype=np.float64)))
    explained = min(float(correlation.max()) ** 2 / energy, 1 - 1e-12)
    return float(10 * np.log10(explained / (1 - explained)))


def piecewise_correlation(wanted: np.ndarray, got: np.ndarray) -> float:
    """Median over pieces of 0.2 s with sound in them, each at the delay of up to 0.1 s that fits it best."""
    size, slack = len(wanted) // 15, len(wanted) // 30
    found = []
    for start in range(slack, len(wanted) - size - slack, size):
        piece, around = wanted[start : start + size], got[start - slack : start + size + slack].astype(np.float64)
        energies = np.convolve(around**2, np.ones(size), "valid")
        if np.sum(piece**2) > 0.01:
            found.append(np.max(np.correlate(around, piece, "valid") / np.sqrt(energies * np.sum(piece**2) + 1e-9)))
    return float(np.median(found))


PCM = ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"]
EXACT: list[tuple[str, str]] = [
    *(("WAV", subtype) for subtype in PCM[1:]),
    *(("WAVEX", subtype) for subtype in PCM[1:]),
    *(("RF64", subtype) for subtype in PCM[1:]),
    *(("W64", subtype) for subtype in PCM[1:]),
    *(("AIFF", subtype) for subtype in PCM[1:]),
    *(("AU", subtype) for subtype in PCM[1:]),
    *(("CAF", subtype) for subtype in [*PCM[1:], "ALAC_16", "ALAC_24", "ALAC_32"]),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
]
# id: (bytes, container, codec, rate, least SNR in dB at best alignment; below 1 the least correlation of 0.2 s pieces: speech
# coders keep the sound and not the phase)
LOSSY: dict[str, tuple[Callable[[], bytes], str, str, int, float]] = {
    "wav-u8": (lambda: with_soundfile("WAV", "PCM_U8"), "wav", "pcm_u8", 16_000, 23),
    "aiff-s8": (lambda: with_soundfile("AIFF", "PCM_S8"), "aiff", "pcm_s8", 16_000, 23),
    "wav-mulaw": (lambda: with_soundfile("WAV", "ULAW"), "wav", "pcm_mulaw", 16_000, 30),
    "wav-alaw": (lambda: with_soundfile("WAV", "ALAW"), "wav", "pcm_alaw", 16_000, 30),
    "au-mulaw": (lambda: with_soundfile("AU", "ULAW", 8_000), "au", "pcm_mulaw", 8_000, 30),
    "wav-gsm610": (lambda: with_soundfile("WAV", "GSM610", 8_000), "wav", "gsm_ms", 8_000, 5),
    "wav-ima-adpcm": (lambda: with_soundfile("WAV", "IMA_ADPCM"), "wav", "adpcm_ima_wav", 16_000, 20),
    "wav-ms-adpcm": (lambda: with_soundfile("WAV", "MS_ADPCM"), "wav", "adpcm_ms", 16_000, 20),
    "wav-g721": (lambda: with_soundfile("WAV", "G721_32", 8_000), "wav", "g721_32", 8_000, 18),
    "au-g721": (lambda: with_soundfile("AU", "G721_32", 8_000), "au", "g721_32", 8_000, 18),
    "au-g723-24": (lambda: with_soundfile("AU", "G723_24", 8_000), "au", "g723_24", 8_000, 10),
    "wav-g723.1": (lambda: with_ffmpeg("wav", "g723_1", 8_000, 6_300), "wav", "g723_1", 8_000, 3),
    "wav-mp3": (lambda: with_ffmpeg("wav", "libmp3lame", 16_000, 64_000), "wav", "mp3", 16_000, 10),
    "mp3": (lambda: with_soundfile("MP3", "MPEG_LAYER_III"), "mp3", "mp3", 16_000, 10),
    "mp2": (lambda: with_ffmpeg("mp2", "mp2", 16_000, 64_000), "mp3", "mp2", 16_000, 10),
    "ogg-vorbis": (lambda: with_soundfile("OGG", "VORBIS"), "ogg", "vorbis", 16_000, 8),
    "ogg-opus": (lambda: with_soundfile("OGG", "OPUS"), "ogg", "opus", 16_000, 8),
    "ogg-speex": (lambda: (FIXTURES / "speech.spx").read_bytes(), "ogg", "speex", 16_000, 0.5),
    "ogg-flac": (lambda: with_ffmpeg("ogg", "flac", 16_000), "ogg", "flac", 16_000, 60),
    "m4a-aac": (lambda: with_ffmpeg("mp4", "aac", 16_000, 64_000), "mp4", "aac", 16_000, 10),
    "adts-aac": (lambda: with_ffmpeg("adts", "aac", 16_000, 64_000), "aac", "aac", 16_000, 10),
    "m4a-alac": (lambda: with_ffmpeg("mp4", "alac", 16_000), "mp4", "alac", 16_000, 60),
    "wma1": (lambda: with_ffmpeg("asf", "wmav1", 16_000, 48_000), "asf", "wmav1", 16_000, 8),
    "wma2": (lambda: with_ffmpeg("asf", "wmav2", 16_000, 48_000), "asf", "wmav2", 16_000, 8),
    "amr-nb": (lambda: with_ffmpeg("amr", "libopencore_amrnb", 8_000, 12_200), "amr", "amr_nb", 8_000, 0.5),
    "amr-wb": (lambda: (FIXTURES / "speech.awb").read_bytes(), "amr", "amr_wb", 16_000, 0.7),
    "webm-opus": (lambda: with_ffmpeg("webm", "libopus", 48_000, 64_000), "matroska", "opus", 48_000, 8),
    "dss-lp": (lambda: dss(2, g723_1_frames()), "dss", "g723_1", 8_000, 3),
}


@pytest.mark.parametrize(("container", "subtype"), EXACT)
def test_lossless_codecs_give_back_every_sample(container: str, subtype: str) -> None:
    audio = read_audio(with_soundfile(container, subtype), "r1")
    np.testing.assert_allclose(audio.samples[0], SPEECH, atol=0 if subtype != "DOUBLE" else 1e-7)


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_codecs_give_back_the_speech(name: str) -> None:
    make, container, codec, rate_hz, least = LOSSY[name]
    audio = read_audio(make(), "r1")
    assert (audio.format.container, audio.format.codec) == (container, codec)
    assert (audio.format.sample_rate_hz, audio.format.channels) == (rate_hz, 1)
    wanted = speech_at(rate_hz)
    assert abs(audio.samples.shape[1] - len(wanted)) <= 0.15 * rate_hz
    closeness = aligned_snr_db(wanted, audio.samples[0]) if least >= 1 else piecewise_correlation(wanted, audio.samples[0])
    assert closeness > least


@pytest.mark.parametrize(
    ("data", "stored", "samples"),
    [
        (
            dss(0, np.random.default_rng(0).integers(0, 256, 506 * 8, dtype=np.uint8).tobytes()),
            ("dss", "dss_sp", 11_025),
            25_000,
        ),
        (dss(0, bytes(506 * 8), blocks_of_header=3), ("dss", "dss_sp", 11_025), 25_000),
        (truespeech(40), ("wav", "truespeech", 8_000), 9_600),
        (grundig_dss(5), ("grundig_dss", "grundig_sp", 12_000), 61 * 288),
    ],
    ids=["dss-sp", "dss-sp-version-3", "truespeech", "grundig"],
)
def test_codecs_without_an_encoder_are_read_to_their_length(data: bytes, stored: tuple[str, str, int], samples: int) -> None:
    """Built from the formats' descriptions around random codes: what comes out is noise, of the right length and rate."""
    audio = read_audio(data, "r1")
    assert (audio.format.container, audio.format.codec, audio.format.sample_rate_hz) == stored
    assert abs(audio.samples.shape[1] - samples) <= 0.1 * samples
    assert np.abs(audio.samples).max() <= 1.0


@pytest.mark.parametrize("cut", [0.3, 0.7])
@pytest.mark.parametrize("name", LOSSY)
def test_files_cut_off_give_a_part_or_an_error(name: str, cut: float) -> None:
    data = LOSSY[name][0]()
    failure: TranscriptionError | None = None
    try:
        audio = read_audio(data[: int(len(data) * cut)], "r1")
    except TranscriptionError as error:
        failure = error
    if failure is None:
        assert 0 < audio.samples.shape[1] / audio.format.sample_rate_hz <= 1.1 * len(speech_at(LOSSY[name][3])) / LOSSY[name][3]
    else:
        assert failure.reason in ("corrupt_audio", "no_audio", "unsupported_codec")
