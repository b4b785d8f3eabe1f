"""Whole Ogg Opus files at 48 kHz through FFmpeg's libopus, in less than half of libsndfile's time. It keeps no account.

libsndfile decodes in its own copy of libopus, compiled without the processor's vector instructions. The samples are the same
to 0.005 of a step of int16; sound that FFmpeg encoded in SILK frames begins two samples of 48 kHz (42 µs) later here, where
FFmpeg's decoders put it. FFmpeg's own Opus decoder would be faster still, and drifts in such frames (``ffmpeg_track.py``).
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import av
import numpy as np

from dictalake.audio.formats.codecs import DECODER_OPTIONS, OPEN_OPTIONS
from dictalake.audio.formats.joining import unify
from dictalake.audio.formats.limits import check_format
from dictalake.audio.formats.pieces import Pieces
from dictalake.audio.formats.reader import DecodeSession
from dictalake.audio.formats.sniff import DEMUXERS, name_container
from dictalake.records import AudioFormat, DecodedAudio

_HEAD_AT = 64  # bytes from the start within which the first packet begins
_OPUS_HZ = 48_000  # what Opus computes in; libsndfile decodes recordings of lower rates at theirs, as fast as FFmpeg at this


class NotPlainOpus(Exception):
    """Another reader has to look at these bytes."""


def is_plain_opus(data: bytes) -> bool:
    """Whether ``data`` begins like Ogg Opus of one or two channels at 48 kHz, without gain (RFC 7845 section 5.1)."""
    at = data.find(b"OpusHead", 0, _HEAD_AT)
    if at < 0 or len(data) < at + 19 or "libopus" not in av.codecs_available:
        return False
    channels, rate_hz, gain, family = data[at + 9], data[at + 12 : at + 16], data[at + 16 : at + 18], data[at + 18]
    return channels in (1, 2) and int.from_bytes(rate_hz, "little") in (0, _OPUS_HZ) and gain == b"\0\0" and family == 0


def read_opus(
    data: bytes, container: str, session: DecodeSession, before_s: float, least: tuple[int, int]
) -> tuple[DecodedAudio, int]:
    """The samples of a whole file for which ``is_plain_opus`` holds, and how many frames.

    Raises NotPlainOpus at the first fault, and what the limits say.
    """
    try:
        source = io.BytesIO(data)
        with av.open(source, mode="r", format=DEMUXERS[container], metadata_errors="replace", options=OPEN_OPTIONS) as file:
            if len(file.streams) != 1 or len(file.streams.audio) != 1:
                raise NotPlainOpus
            stream = file.streams.audio[0]
            channels = stream.codec_context.channels
            check_format(session.recording_id, _OPUS_HZ, channels, session.limits)
            rate_hz, most = max(_OPUS_HZ, least[0]), max(channels, least[1])
            stored = AudioFormat(name_container(container) or container, "opus", rate_hz, most)
            blocks = unify(((_OPUS_HZ, block) for block in _decode(file, stream, channels)), rate_hz, most)
            samples, frames = session.take(rate_hz, blocks, before_s)
            return DecodedAudio(samples, stored), frames
    except (av.error.FFmpegError, ValueError, OverflowError, IndexError):
        raise NotPlainOpus from None


def _decode(file: av.container.InputContainer, stream: av.AudioStream, channels: int) -> Iterator[np.ndarray]:
    decoder = av.CodecContext.create("libopus", "r")
    decoder.extradata = stream.codec_context.extradata
    decoder.options = DECODER_OPTIONS | {"request_sample_fmt": "flt"}
    pieces = Pieces()
    for packet in file.demux(stream):
        for frame in decoder.decode(packet if packet.size else None):
            if frame.sample_rate != _OPUS_HZ or frame.layout.nb_channels != channels or not pieces.fits(frame):
                raise NotPlainOpus
            pieces.add(frame)
        if pieces.is_full:
            yield from (block for _, block in pieces.take())
    yield from (block for _, block in pieces.take())
