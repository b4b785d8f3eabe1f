"""Sound tracks through FFmpeg, on the clock of their container, with an account of what could not be decoded.

Containers with a clock (MP4, Matroska, Ogg, FLAC, ASF …) give each frame its time. Streams of bare frames (MP3, ADTS, AMR …)
have none: there the bytes between good packets, at the average bytes a second, tell how much sound is missing.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain

import av
import numpy as np

from dictalake.audio.formats.account import add_accounts
from dictalake.audio.formats.codecs import (
    OPEN_OPTIONS,
    check_codec,
    refuse_unknown_codec,
    refuse_without_track,
)
from dictalake.audio.formats.ffmpeg_track import TRANSPORT, Track
from dictalake.audio.formats.joining import Widened, unify
from dictalake.audio.formats.limits import check_format
from dictalake.audio.formats.reader import DecodeSession
from dictalake.audio.formats.sniff import DEMUXERS, name_container
from dictalake.audio.formats.timeline import Timeline
from dictalake.errors import CorruptAudio, TooManyChannels
from dictalake.records import Account, AudioFormat, DecodedAudio

_MOST_TRANSPORT_GAP_S = 30.0
_BEGIN_AT_ZERO = ("asf", "matroska", "flac")  # unless they are recordings of something that had begun before
_BEGINS_BY_S = 10.0


def read_with_ffmpeg(
    data: bytes,
    container: str,
    session: DecodeSession,
    before_s: float = 0.0,
    least: tuple[int, int] = (0, 0),
    *,
    is_damaged: bool = False,
    begins_at_zero: bool = False,
    has_clock: bool = True,
) -> tuple[DecodedAudio, int]:
    """All sound tracks of ``data`` as channels, and how many frames of the first track's rate there are; 0: none decoded.

    ``least`` are a rate in Hz and a channel count that are wanted at least. ``begins_at_zero`` says that sound is missing
    before the first frame if the clock does not stand at 0 there, ``is_damaged`` that jumps of the clock are damage;
    without ``has_clock`` blocks just follow one another. Raises CorruptAudio, UnsupportedCodec, TooLong or TooManyChannels.
    """
    with _open(data, container, session) as file:
        count = len(file.streams.audio)
        times = [(one.start_time, one.time_base) for one in file.streams.audio]
        starts = [float(start * base) for start, base in times if start is not None and base is not None]
        if count == 0:
            kinds = [each.type for each in file.streams]
            raise refuse_without_track(session.recording_id, kinds, name_container(container) or container)
    most_s = session.limits.duration_h * 3600

    def make_timeline() -> Timeline:
        timeline = Timeline(
            most_s,
            is_exact=container == "flac",
            is_damaged=is_damaged,
            most_gap_s=_MOST_TRANSPORT_GAP_S if container in TRANSPORT else float("inf"),
            has_clock=has_clock,
            begins_by_s=_BEGINS_BY_S if count == 1 and container in _BEGIN_AT_ZERO else 0.0,
        )
        if begins_at_zero:
            timeline.begin(0.0)
        if count > 1 and len(starts) == count:
            timeline.begin_later(min(starts))
        return timeline

    def read(number: int, wanted: tuple[int, int]) -> _ReadTrack:
        return _read_track(data, container, number, session, before_s, wanted, make_timeline)

    tracks = [read(number, least) for number in range(count)]
    rate_hz = max(track.audio.format.sample_rate_hz for track in tracks)
    tracks = [
        read(track.number, (rate_hz, least[1])) if track.frames and track.audio.format.sample_rate_hz < rate_hz else track
        for track in tracks
    ]
    sounding = [track for track in tracks if track.frames] or tracks[:1]
    first = sounding[0]
    account = first.audio.account
    if len(sounding) > 1 or count > 1:
        account = _worst([track.audio.account for track in tracks])
    if len(sounding) == 1:
        return replace(first.audio, account=account), first.frames
    channels = sum(track.audio.format.channels for track in sounding)
    if channels > session.limits.channels:
        raise TooManyChannels(
            session.recording_id,
            f"its {len(sounding)} sound tracks have {channels} channels, limits.channels allows {session.limits.channels}; "
            "split it or raise the limit",
        )
    samples = _stack([track.audio.samples for track in sounding])
    numbers = tuple(track.number for track in sounding for _ in range(track.audio.format.channels))
    stored = replace(first.audio.format, channels=channels, tracks=numbers)
    return replace(first.audio, samples=samples, format=stored, account=account), max(track.frames for track in sounding)


@dataclass(frozen=True)
class _ReadTrack:
    number: int
    audio: DecodedAudio
    frames: int


def _worst(accounts: list[Account]) -> Account:
    """Tracks sound at the same time: the loss of the recording is that of its worst track."""
    lost = [account.lost_s for account in accounts]
    words = add_accounts(accounts).repairs
    known = [seconds for seconds in lost if seconds is not None]
    return Account(None if len(known) < len(lost) else max(known), words, max(account.broken_s for account in accounts))


def _stack(parts: list[np.ndarray]) -> np.ndarray:
    length = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, length - part.shape[1]))) for part in parts])


@contextmanager
def _open(data: bytes, container: str, session: DecodeSession) -> Iterator[av.container.InputContainer]:
    """The file, with FFmpeg's errors as ours while it is open."""
    name, recording_id = name_container(container) or container, session.recording_id
    try:
        demuxer, source = DEMUXERS[container], io.BytesIO(data)
        with av.open(source, mode="r", format=demuxer, metadata_errors="replace", options=OPEN_OPTIONS) as file:
            yield file
    except av.error.DecoderNotFoundError:
        raise refuse_unknown_codec(recording_id, data, container, name) from None
    except (av.error.FFmpegError, ValueError, OverflowError) as error:
        raise CorruptAudio(recording_id, f"it starts like {name} but cannot be decoded ({type(error).__name__})") from None


def _read_track(
    data: bytes,
    container: str,
    number: int,
    session: DecodeSession,
    before_s: float,
    least: tuple[int, int],
    make_timeline: Callable[[], Timeline],
) -> _ReadTrack:
    """One track; begun anew where a later part has more channels or a higher rate than the first frame had."""
    name = name_container(container) or container
    missing_s, misled = 0.0, None
    while True:
        with _open(data, container, session) as file:
            stream = file.streams.audio[number]
            # PyAV types it as never None; a track whose coding FFmpeg does not know has none
            context = getattr(stream, "codec_context", None)
            if context is None:
                raise refuse_unknown_codec(session.recording_id, data, container, name)
            codec = context.codec.canonical_name
            check_codec(session.recording_id, codec, context.codec.name)
            timeline = make_timeline()
            if misled is not None and not timeline.trust(misled):
                raise _contradiction(session, name)
            track = Track(data, container, file, stream, timeline, missing_s)
            blocks = track.blocks()
            first = next(blocks, None)
            if first is None:
                empty = np.zeros((0, 0), np.float32)
                return _ReadTrack(number, DecodedAudio(empty, AudioFormat(name, codec, 0, 0), account=track.account), 0)
            rate_hz, channels = max(first[0], least[0]), max(len(first[1]), least[1])
            check_format(session.recording_id, rate_hz, channels, session.limits)
            try:
                samples, frames = session.take(rate_hz, unify(chain([first], blocks), rate_hz, channels), before_s)
            except Widened as wider:
                least = (wider.rate_hz, wider.channels)
                continue
            if timeline.was_misled and misled is None:
                misled = timeline
                continue
            if timeline.is_too_long:
                raise _contradiction(session, name)
            if track.misplaced_s:
                missing_s = track.misplaced_s
                continue
            stored = AudioFormat(name, codec, rate_hz, channels)
            return _ReadTrack(number, DecodedAudio(samples, stored, account=track.account), frames)


def _contradiction(session: DecodeSession, name: str) -> CorruptAudio:
    return CorruptAudio(
        session.recording_id, f"the times inside the {name} container contradict one another; copy it again from its source"
    )
