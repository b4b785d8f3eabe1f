"""Known sound in the containers that libsndfile does not write, made by FFmpeg's encoders or by hand."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import av
import numpy as np

from tests.unit.audio.formats.archive_samples import encode, make_tone

TONE = make_tone(2.0)  # (frames, 1) at 16 kHz
INT16 = np.rint(TONE[:, 0] * 32768).astype(np.int16)


def with_ffmpeg(
    muxer: str,
    encoder: str,
    rate_hz: int = 16_000,
    bit_rate: int | None = None,
    video: str | None = None,
    sample_format: str | None = None,
) -> bytes:
    """The tone of two seconds; with ``video`` beside pictures that change, by that encoder. No ``encoder``: no sound."""
    tone = make_tone(2.0, rate_hz)[:, 0].astype(np.float32)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=muxer) as file:
        pictures = None
        if video is not None:
            pictures = file.add_stream(video, rate=10, width=64, height=48, pix_fmt="yuv420p")
        sound = file.add_stream(encoder, rate=rate_hz, layout="mono") if encoder else None
        if sound is not None and bit_rate is not None:
            sound.bit_rate = bit_rate
        if sound is not None and sample_format is not None:
            sound.codec_context.format = sample_format
        if pictures is not None:
            for index in range(20):
                picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * index, np.uint8), format="rgb24")
                picture.pts, picture.time_base = index, Fraction(1, 10)
                file.mux(pictures.encode(picture.reformat(format="yuv420p")))
            file.mux(pictures.encode(None))
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate_hz, 0
            resampler = av.AudioResampler(format=sound.codec_context.format, layout="mono", rate=rate_hz)
            fifo, size = av.AudioFifo(), sound.codec_context.frame_size or 960
            for converted in resampler.resample(frame):
                fifo.write(converted)
            while block := fifo.read(size, partial=True):
                file.mux(sound.encode(block))
            file.mux(sound.encode(None))
    return buffer.getvalue()


def make_voc() -> bytes:
    """Block 9 of VOC 1.20: rate, bits, channels and coding, then the samples."""
    payload = INT16.tobytes()
    head = struct.pack("<19sBHHH", b"Creative Voice File", 0x1A, 26, 0x0114, 0x1F11)
    block = struct.pack("<IBBHI", 16_000, 16, 1, 4, 0) + payload
    return head + b"\x09" + len(block).to_bytes(3, "little") + block + b"\0"


def make_nist(coding: str = "pcm", payload: bytes | None = None) -> bytes:
    """A SPHERE header of 1,024 bytes in its own words, then the samples."""
    wide = 1 if coding == "ulaw" else 2
    samples = INT16.tobytes() if payload is None else payload
    lines = [
        "NIST_1A",
        "   1024",
        "channel_count -i 1",
        "sample_rate -i 16000",
        f"sample_count -i {len(samples) // wide}",
        f"sample_n_bytes -i {wide}",
        *(["sample_byte_format -s2 01"] if wide == 2 else []),
        f"sample_sig_bits -i {8 * wide}",
        f"sample_coding -s{len(coding)} {coding}",
        "end_head",
    ]
    return ("\n".join(lines) + "\n").encode().ljust(1024) + samples


def make_little_endian_au() -> bytes:
    """``dns.``: AU as DEC wrote it, every number with its least byte first."""
    return b"dns." + struct.pack("<IIIII", 24, 2 * len(INT16), 3, 16_000, 1) + INT16.tobytes()


def make_bw64() -> bytes:
    """EBU's BW64: as RF64, by another name."""
    return b"BW64" + encode(TONE, 16_000, "RF64")[4:]


def make_ilbc(frames: int = 50) -> bytes:
    """Frames of 30 ms, 50 bytes each, of random codes: noise of the right length."""
    return b"#!iLBC30\n" + np.random.default_rng(0).integers(0, 255, 50 * frames, dtype=np.uint8).tobytes()


def make_boxes(*boxes: tuple[bytes, bytes]) -> bytes:
    return b"".join(struct.pack(">I4s", 8 + len(body), kind) + body for kind, body in boxes)


def move_ftyp(mp4: bytes, kind: bytes) -> bytes:
    """An MP4 whose first box is not ``ftyp``: it becomes ``kind``, which nobody reads."""
    assert mp4[4:8] == b"ftyp"
    return mp4[:4] + kind + mp4[8:]
