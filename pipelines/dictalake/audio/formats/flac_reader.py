"""Damaged FLAC frame by frame: each header says by its number where the frame belongs, and the decoder checks its checksum.

FFmpeg's own splitting of such files loses the numbers of the frames around the damage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, pairwise

import av
import numpy as np

from dictalake.audio.formats.announced import FlacInfo, read_flac_info
from dictalake.audio.formats.flac_frames import read_frame_place
from dictalake.audio.formats.joining import RatedBlock, unify
from dictalake.audio.formats.limits import check_format
from dictalake.audio.formats.reader import DecodeSession
from dictalake.audio.formats.timeline import Timeline, make_silence
from dictalake.records import AudioFormat, DecodedAudio

_SYNC = re.compile(rb"\xff[\xf8\xf9]")
_HEADER_BYTES = 18
_BEGINS_BY_S = 10.0
_NEAR_FRAMES = 8


def read_damaged_flac(data: bytes, session: DecodeSession, before_s: float, least: tuple[int, int]) -> tuple[DecodedAudio, int]:
    """The frames of one FLAC file that are whole, each at its place; 0 frames where there is none, or no STREAMINFO."""
    info = read_flac_info(data)
    empty = DecodedAudio(np.zeros((0, 0), np.float32), AudioFormat("flac", "flac", 0, 0))
    if info is None or not info.rate_hz:
        return empty, 0
    timeline = Timeline(session.limits.duration_h * 3600, is_exact=True, is_damaged=True, begins_by_s=_BEGINS_BY_S)
    blocks = _decode(data, info, timeline)
    first = next(blocks, None)
    if first is None:
        timeline.break_packet()
        return empty, 0
    rate_hz = max(info.rate_hz, least[0])
    check_format(session.recording_id, rate_hz, len(first[1]), session.limits)
    samples, frames = session.take(rate_hz, unify(chain([first], blocks), rate_hz, len(first[1])), before_s)
    return DecodedAudio(samples, AudioFormat("flac", "flac", rate_hz, len(first[1])), account=timeline.account), frames


def _decode(data: bytes, info: FlacInfo, timeline: Timeline) -> Iterator[RatedBlock]:
    decoder = av.CodecContext.create("flac", "r")
    decoder.extradata = data[8:42]
    decoder.options = {"err_detect": "crccheck+explode"}
    expected, good_bytes, good_to, channels, largest = -1, 0, 42, 0, 0
    frames = [*_find_frames(data, info), (len(data), 0, 0)]
    known_end = 0
    for (at, start, samples), (end, _, _) in pairwise(frames):
        if start < expected:
            continue  # a frame that was there before, or none
        block = _decode_frame(decoder, data[at:end], info.rate_hz, channels)
        if block is None:
            timeline.break_packet()
            if start <= max(expected, 0) + _NEAR_FRAMES * samples:
                known_end = max(known_end, start + samples)  # its header is right, and what it holds is damaged
            continue
        channels = len(block)
        for silence in make_silence(
            timeline.place(start / info.rate_hz, block.shape[1] / info.rate_hz), info.rate_hz, channels
        ):
            yield info.rate_hz, silence
        yield info.rate_hz, block
        # Behind the last frame before damage stand bytes that are none of it.
        size = min(end - at, 2 * max(good_bytes // max(expected, 1) * block.shape[1], 1)) if good_bytes else end - at
        expected, good_bytes, good_to = start + block.shape[1], good_bytes + size, at + size
        largest = max(largest, size)
    _finish(data, info, timeline, good_to, largest, known_end)


def _decode_frame(decoder: av.AudioCodecContext, frame: bytes, rate_hz: int, channels: int) -> np.ndarray | None:
    """float32 ``(channels, samples)``; None where the checksum is wrong, or the frame is of another stream."""
    try:
        decoded = decoder.decode(av.Packet(frame))
    except av.error.FFmpegError:
        return None
    if len(decoded) != 1 or decoded[0].sample_rate != rate_hz or channels not in (0, decoded[0].layout.nb_channels):
        return None
    (packed,) = av.AudioResampler(format="flt").resample(decoded[0])
    count = packed.layout.nb_channels
    values = np.frombuffer(memoryview(packed.planes[0]), dtype=np.float32, count=packed.samples * count)
    return values.reshape(packed.samples, count).T.copy()


def _find_frames(data: bytes, info: FlacInfo) -> Iterator[tuple[int, int, int]]:
    """Place in bytes, first sample and length of each frame whose header has a right checksum, or looks like it."""
    block_samples = int.from_bytes(data[8:10], "big")
    most = info.samples or 1 << 36
    for match in _SYNC.finditer(data, 42):
        place = read_frame_place(data[match.start() : match.start() + _HEADER_BYTES], block_samples)
        if place is not None and place[0] <= max(most, 1 << 24):
            yield match.start(), *place


def _finish(data: bytes, info: FlacInfo, timeline: Timeline, good_to: int, largest: int, known_end: int) -> None:
    unread = len(data) - good_to
    end_s = info.samples / info.rate_hz if info.samples else None
    if known_end > info.samples:
        timeline.finish(known_end / info.rate_hz, is_cut=False)
    is_rest = unread > 2 * largest
    timeline.finish(end_s, is_cut=not is_rest)  # the frame that the object ends in is broken, too
    if end_s is None:
        timeline.repairs.add("header_open")
        if is_rest and timeline.decoded_s:
            timeline.miss_end(unread * timeline.decoded_s / max(good_to, 1))
    elif timeline.at_s > end_s + 0.5:
        timeline.repairs.add("header_short")
