"""Files that FFmpeg writes, with gaps in their clock where they are asked for."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import soxr

from tests.coded_sound import RATE_HZ

_EMPTY: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Track:
    sound: np.ndarray
    codec: str
    rate_hz: int = RATE_HZ
    bit_rate: int | None = None
    layout: str = "mono"


def mux(muxer: str, tracks: Sequence[Track], gap: tuple[float, float] = _EMPTY, **options: str) -> bytes:
    """``gap``: packets between these seconds are left out, and the times of the rest are kept."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=muxer, options=options) as file:
        streams = []
        for track in tracks:
            stream = file.add_stream(track.codec, rate=track.rate_hz, layout=track.layout)
            if track.bit_rate:
                stream.bit_rate = track.bit_rate
            streams.append(stream)
        file.start_encoding()
        packets = [packet for stream, track in zip(streams, tracks, strict=True) for packet in _packets(stream, track)]
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            if not gap[0] <= float(packet.pts * packet.time_base) < gap[1]:
                file.mux(packet)
    return buffer.getvalue()


def _packets(stream: av.AudioStream, track: Track) -> list[av.Packet]:
    sound = track.sound if track.rate_hz == RATE_HZ else soxr.resample(track.sound, RATE_HZ, track.rate_hz).clip(-0.99, 0.99)
    channels = av.AudioLayout(track.layout).nb_channels
    interleaved = np.repeat(sound.astype(np.float32), channels)[None]
    frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=track.layout)
    frame.sample_rate, frame.pts, frame.time_base = track.rate_hz, 0, Fraction(1, track.rate_hz)
    fifo, packets = av.AudioFifo(), []
    for converted in av.AudioResampler(stream.codec_context.format, track.layout, track.rate_hz).resample(frame):
        fifo.write(converted)
    partial = track.codec != "libopencore_amrnb"
    while block := fifo.read(stream.codec_context.frame_size or 960, partial=partial):
        packets += stream.encode(block)
    return packets + stream.encode(None)


def remux_with_gap(data: bytes, gap: tuple[float, float]) -> bytes:
    """The packets of ``data`` again in Ogg, without those between the seconds of ``gap``."""
    buffer = io.BytesIO()
    # Pages of Ogg end at the gap only if they are short: a page gives the time of its end alone.
    options = {"page_duration": "20000"}
    with av.open(io.BytesIO(data), "r") as source, av.open(buffer, "w", format="ogg", options=options) as file:
        stream = file.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None and not gap[0] <= float(packet.pts * packet.time_base) < gap[1]:
                packet.stream = stream
                file.mux(packet)
    return buffer.getvalue()


def put_index_in_front(m4a: bytes) -> bytes:
    """As for streaming: ``moov`` before ``mdat``."""
    start = m4a.index(b"moov") - 4
    brand = int.from_bytes(m4a[:4], "big")
    moov = m4a[start:]
    return m4a[:brand] + shift_offsets(moov, len(moov)) + m4a[brand:start]


def shift_offsets(data: bytes, by: int) -> bytes:
    """The boxes of an M4A whose ``stco`` counts ``by`` bytes more."""
    shifted = bytearray(data)
    at = data.index(b"stco") + 8
    count = int.from_bytes(data[at : at + 4], "big")
    for entry in range(at + 4, at + 4 + 4 * count, 4):
        shifted[entry : entry + 4] = (int.from_bytes(data[entry : entry + 4], "big") + by).to_bytes(4, "big")
    return bytes(shifted)
