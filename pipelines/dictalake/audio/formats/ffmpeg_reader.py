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
from typing import cast

import av
import numpy as np

from dictalake.audio.formats.account import add_accounts
from dictalake.audio.formats.announced import find_end
from dictalake.audio.formats.bare_frames import BareFrames
from dictalake.audio.formats.codecs import (
    DECODER_OPTIONS,
    OPEN_OPTIONS,
    check_codec,
    refuse_unknown_codec,
    refuse_without_track,
)
from dictalake.audio.formats.joining import RatedBlock, Widened, unify
from dictalake.audio.formats.limits import check_format
from dictalake.audio.formats.reader import DecodeSession
from dictalake.audio.formats.sniff import DEMUXERS, name_container
from dictalake.audio.formats.timeline import Timeline, make_silence
from dictalake.errors import CorruptAudio, TooManyChannels
from dictalake.records import Account, AudioFormat, DecodedAudio

# Demuxers whose packets have times of their own; all others are streams of bare frames.
_CLOCKED = {"mp4", "matroska", "ogg", "asf", "flac", "wav", "w64", "aiff", "au", "caf", "wavpack", "tta", "ape", "avi", "flv"}
_CLOCKED |= {"mpegts", "mpegps", "realmedia"}
_CHECKSUMMED = ("flac", "wavpack", "tta", "ape")  # codecs whose frames have checksums
_TRANSPORT = ("mpegts", "mpegps")  # streams that are cut and joined anywhere
_MOST_TRANSPORT_GAP_S = 30.0
_PES_BYTES = 8192  # of one packet of theirs, which holds several of the codec's
_ANNOUNCE_THE_WHOLE = ("matroska", "asf", "flv")
_UNSURE_S = 0.5
_MOST_UNREAD = 20  # times what was read
_LEAST_UNREAD = 0.02  # of the bytes: an index behind the sound is smaller
_AMR_FRAME_S = 0.02
_PLANES = 7  # PyAV counts one more than there are, and reads it
_BEGIN_AT_ZERO = ("asf", "matroska", "flac")  # unless they are recordings of something that had begun before
_BEGINS_BY_S = 10.0
_AMR_SPEECH_MODES = {"amrnb": 8, "amrwb": 9, "amr_nb": 8, "amr_wb": 9}  # frame types from here on hold no speech
_AMR_SPEECH_LOST = 14


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
            most_gap_s=_MOST_TRANSPORT_GAP_S if container in _TRANSPORT else float("inf"),
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
            track = _Track(data, container, file, stream, timeline, missing_s)
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


def _open_decoder(stream: av.AudioStream) -> av.AudioCodecContext:
    """libopus for Opus: FFmpeg's own decoder drifts away from what was encoded in SILK frames that are not plain speech."""
    context = stream.codec_context
    is_checked = context.codec.canonical_name in _CHECKSUMMED
    context.options = DECODER_OPTIONS | ({"err_detect": "crccheck+explode"} if is_checked else {})
    is_opus = context.codec.canonical_name == "opus" and (context.extradata or b"").startswith(b"OpusHead")
    if not is_opus or "libopus" not in av.codecs_available:
        return context
    decoder = av.CodecContext.create("libopus", "r")
    decoder.extradata = context.extradata
    decoder.options = dict(DECODER_OPTIONS)
    return decoder


class _Track:
    """One stream of an open file: blocks in order of time, and, once they have ended, the account."""

    def __init__(
        self,
        data: bytes,
        container: str,
        file: av.container.InputContainer,
        stream: av.AudioStream,
        timeline: Timeline,
        missing_s: float,
    ) -> None:
        """``missing_s`` is missing at the one place where a stream of bare frames is damaged, beside the bytes there."""
        self._data, self._container, self._file, self._stream = data, container, file, stream
        self._decoder = _open_decoder(stream)
        self._speech_modes = _AMR_SPEECH_MODES.get(stream.codec_context.name) if container == "amr" else None
        self._timeline = timeline
        has_clock = container in _CLOCKED
        self._bare = None if has_clock else BareFrames(data, container, stream.bit_rate or 0, timeline, missing_s)
        self._largest, self._good_to = 0, 0  # of good packets, in bytes
        self._format: tuple[int, int] | None = None
        self._packer: av.AudioResampler | None = None
        self._packs: tuple[str, str, int] | None = None

    @property
    def account(self) -> Account:
        return self._timeline.account

    @property
    def misplaced_s(self) -> float:
        """What is missing by the announced length, and belongs to the one place where bare frames are damaged."""
        return 0.0 if self._bare is None else self._bare.misplaced_s

    def blocks(self) -> Iterator[RatedBlock]:
        """float32 ``(channels, frames)`` with its rate; silence where sound is missing."""
        for packet in self._packets():
            silent = self._read_silent_frame(packet) if self._speech_modes is not None else None
            if silent is not None:
                yield from self._place(None, *silent)
                continue
            if packet.size and self._bare is not None and not self._bare.is_frame(packet):
                self._break(packet)
                continue
            try:
                frames = self._decoder.decode(packet if packet.size else None)
            except av.error.EOFError:
                break
            except av.error.FFmpegError:
                self._break(packet)
                continue
            for frame in frames:
                rate_hz, block = frame.sample_rate, self._pack(frame)
                if rate_hz > 0 and block.size:
                    yield from self._place(frame, rate_hz, block)
            if frames:
                self._count_good(packet)
        self._finish()

    def _packets(self) -> Iterator[av.Packet]:
        """Packets until the end, or until the demuxer gives up; bytes between them are accounted for."""
        demuxed, goes_on = self._file.demux(self._stream), False
        while True:
            try:
                packet = next(demuxed)
            except StopIteration:
                return
            except IndexError:  # PyAV's at the end, if a track appeared late (FLV, MPEG-TS); ours has ended before
                return
            except av.error.FFmpegError:
                self._timeline.break_packet()
                if not goes_on:
                    return
                demuxed, goes_on = self._file.demux(self._stream), False  # behind the damage, if there is more
                continue
            goes_on = packet.size > 0
            if packet.size and self._bare is not None:
                self._bare.find(packet)
            yield packet

    def _count_good(self, packet: av.Packet) -> None:
        if self._bare is not None:
            self._bare.count_good(packet)
        # The last packet before damage may have swallowed what follows: its own size says nothing.
        size = min(packet.size, 2 * self._largest) if self._largest else packet.size
        self._good_to = max(self._good_to, (packet.pos or 0) + size)
        self._largest = max(self._largest, size)

    def _break(self, packet: av.Packet) -> None:
        if self._bare is not None:
            self._bare.break_packet(packet)
            return
        if packet.pts is not None and packet.time_base:
            self._timeline.begin(float(packet.pts * packet.time_base))
        self._timeline.break_packet()

    def _read_silent_frame(self, packet: av.Packet) -> RatedBlock | None:
        """A frame of AMR that holds no speech (SID, NO_DATA): discontinuous transmission, not loss; FFmpeg refuses it."""
        modes = self._speech_modes
        if modes is None or not packet.size:
            return None
        mode = bytes(packet)[0] >> 3 & 15
        if mode < modes:
            return None
        rate_hz = self._stream.codec_context.sample_rate
        if mode == _AMR_SPEECH_LOST:
            self._timeline.miss(_AMR_FRAME_S)
            return rate_hz, np.zeros((1, 0), np.float32)
        return rate_hz, np.zeros((1, round(_AMR_FRAME_S * rate_hz)), np.float32)

    def _place(self, frame: av.AudioFrame | None, rate_hz: int, block: np.ndarray) -> Iterator[RatedBlock]:
        start_s = None
        if self._bare is None and frame is not None and frame.pts is not None and frame.time_base:
            start_s = float(frame.pts * frame.time_base)
        shape = (rate_hz, len(block))
        is_seam = self._bare is not None and self._bare.pass_seam()
        if self._timeline.decoded_s and (is_seam or (self._format is not None and self._format != shape)):
            self._timeline.repairs.add("joined")
        self._format = shape
        silence_s = self._timeline.place(start_s, block.shape[1] / rate_hz)
        if silence_s:
            for silence in make_silence(silence_s, rate_hz, len(block)):
                yield rate_hz, silence
        if block.size:
            yield rate_hz, block

    def _pack(self, frame: av.AudioFrame) -> np.ndarray:
        """float32 ``(channels, frames)``; PyAV reads planes beyond the seventh from where there are none."""
        channels = frame.layout.nb_channels
        if channels <= _PLANES and frame.format.name == "fltp":
            if channels == 1:
                return np.frombuffer(memoryview(frame.planes[0]), dtype=np.float32, count=frame.samples)[None]
            return cast(np.ndarray, frame.to_ndarray())
        stored = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._packer is None or self._packs != stored:
            self._packer, self._packs = av.AudioResampler(format="flt"), stored
        parts = []
        for packed in self._packer.resample(frame):
            values = np.frombuffer(memoryview(packed.planes[0]), dtype=np.float32, count=packed.samples * channels)
            parts.append(values.reshape(packed.samples, channels).T.copy())
        return np.concatenate(parts, axis=1) if parts else np.zeros((channels, 0), np.float32)

    def _finish(self) -> None:
        if self._bare is not None:
            self._bare.finish()
            return
        end_s, may_be_short = find_end(self._data, self._container, self._file, self._stream)
        timeline = self._timeline
        unread = len(self._data) - self._good_to
        if len(self._file.streams) > 1 and self._container in _ANNOUNCE_THE_WHOLE:
            # The length is that of the longest track, pictures included.
            if end_s is not None and end_s > timeline.at_s + _UNSURE_S:
                timeline.leave_unknown()
            return
        # The packet that the object ends in is broken, too.
        is_cut = unread <= 2 * self._largest or (self._container not in ("flac", "avi") and not timeline.is_broken)
        timeline.finish(end_s, is_cut=is_cut)
        is_silent_about_it = self._container != "ogg" and (end_s is None or self._is_fragmented())
        least = max(4 * self._largest, _LEAST_UNREAD * len(self._data), _PES_BYTES if self._container in _TRANSPORT else 0)
        if is_silent_about_it and self._good_to and unread > least:
            if unread > _MOST_UNREAD * self._good_to:
                timeline.leave_unknown()  # FFmpeg tells the places of these packets wrong, or next to nothing is left
            else:
                timeline.miss_end(unread * timeline.decoded_s / self._good_to)
        if self._container == "flac" and end_s is None and timeline.decoded_s:
            timeline.repairs.add("header_open")
        timeline.doubt(end_s)
        if may_be_short and end_s is not None and timeline.at_s > end_s + _UNSURE_S:
            timeline.repairs.add("header_short")

    def _is_fragmented(self) -> bool:
        """An MP4 in fragments announces the length of those that could be found."""
        return self._container == "mp4" and b"moof" in self._data[: 2**20]
