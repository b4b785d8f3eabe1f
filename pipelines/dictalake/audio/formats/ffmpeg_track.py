"""One sound track through FFmpeg: its blocks on the clock of its container, and the account of what could not be decoded."""

from __future__ import annotations

from collections.abc import Iterator

import av

from dictalake.audio.formats.announced import find_end
from dictalake.audio.formats.bare_frames import BareFrames
from dictalake.audio.formats.codecs import DECODER_OPTIONS
from dictalake.audio.formats.joining import RatedBlock
from dictalake.audio.formats.pieces import Pieces
from dictalake.audio.formats.timeline import Timeline, make_silence
from dictalake.records import Account

TRANSPORT = ("mpegts", "mpegps")  # streams that are cut and joined anywhere
# Demuxers whose packets have times of their own; all others are streams of bare frames.
_CLOCKED = {"mp4", "matroska", "ogg", "asf", "flac", "wav", "w64", "aiff", "au", "caf", "wavpack", "tta", "ape", "avi", "flv"}
_CLOCKED |= {"mpegts", "mpegps", "realmedia"}
_CHECKSUMMED = ("flac", "wavpack", "tta", "ape")  # codecs whose frames have checksums
_PES_BYTES = 8192  # of one packet of theirs, which holds several of the codec's
_ANNOUNCE_THE_WHOLE = ("matroska", "asf", "flv")
_UNSURE_S = 0.5
_MOST_UNREAD = 20  # times what was read
_LEAST_UNREAD = 0.02  # of the bytes: an index behind the sound is smaller
_AMR_FRAME_S = 0.02
_AMR_SPEECH_MODES = {"amrnb": 8, "amrwb": 9, "amr_nb": 8, "amr_wb": 9}  # frame types from here on hold no speech
_AMR_SPEECH_LOST = 14


def open_decoder(stream: av.AudioStream) -> av.AudioCodecContext:
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


class Track:
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
        self._decoder = open_decoder(stream)
        self._speech_modes = _AMR_SPEECH_MODES.get(stream.codec_context.name) if container == "amr" else None
        self._timeline = timeline
        has_clock = container in _CLOCKED
        self._bare = None if has_clock else BareFrames(data, container, stream.bit_rate or 0, timeline, missing_s)
        self._largest, self._good_to = 0, 0  # of good packets, in bytes
        self._format: tuple[int, int] | None = None
        self._units: tuple[int, int] | None = None  # numerator and denominator of the seconds that the clock counts in

    @property
    def account(self) -> Account:
        return self._timeline.account

    @property
    def misplaced_s(self) -> float:
        """What is missing by the announced length, and belongs to the one place where bare frames are damaged."""
        return 0.0 if self._bare is None else self._bare.misplaced_s

    def blocks(self) -> Iterator[RatedBlock]:
        """float32 ``(channels, frames)`` with its rate; silence where sound is missing."""
        pieces, decode, bare = Pieces(), self._decoder.decode, self._bare
        for packet in self._packets():
            if bare is not None and packet.size:
                bare.find(packet)
            silent = None if self._speech_modes is None else self._read_silent_frame(packet)
            if silent is not None:
                yield from pieces.take()
                rate_hz, samples = silent
                yield from _make_silence(self._place(None, rate_hz, 1, samples), rate_hz, 1)
                yield from _make_silence(samples / rate_hz, rate_hz, 1)
                continue
            if bare is not None and packet.size and not bare.is_frame(packet):
                self._break(packet)
                continue
            try:
                frames = decode(packet if packet.size else None)
            except av.error.EOFError:
                break
            except av.error.FFmpegError:
                self._break(packet)
                continue
            for frame in frames:
                rate_hz, channels, samples = frame.sample_rate, frame.layout.nb_channels, frame.samples
                if not (rate_hz > 0 and samples and channels):
                    continue
                silence_s = self._place(self._read_start(frame, packet), rate_hz, channels, samples)
                if silence_s or pieces.is_full or not pieces.fits(frame):
                    yield from pieces.take()
                    yield from _make_silence(silence_s, rate_hz, channels)
                pieces.add(frame)
            if frames:
                self._count_good(packet)
        yield from pieces.take()
        self._finish()

    def _packets(self) -> Iterator[av.Packet]:
        """Packets until the end, or until the demuxer gives up."""
        demuxed, goes_on = self._file.demux(self._stream), False
        while True:
            try:
                for packet in demuxed:
                    goes_on = packet.size > 0
                    yield packet
                return
            except IndexError:  # PyAV's at the end, if a track appeared late (FLV, MPEG-TS); ours has ended before
                return
            except av.error.FFmpegError:
                self._timeline.break_packet()
                if not goes_on:
                    return
                demuxed, goes_on = self._file.demux(self._stream), False  # behind the damage, if there is more

    def _count_good(self, packet: av.Packet) -> None:
        size = packet.size
        if self._bare is not None:
            self._bare.count_good(size)
            return
        if self._largest and size > 2 * self._largest:
            size = 2 * self._largest  # the last packet before damage may have swallowed what follows
        end = (packet.pos or 0) + size
        if end > self._good_to:
            self._good_to = end
        if size > self._largest:
            self._largest = size

    def _break(self, packet: av.Packet) -> None:
        if self._bare is not None:
            self._bare.break_packet(packet)
            return
        if packet.pts is not None and packet.time_base:
            self._timeline.begin(float(packet.pts * packet.time_base))
        self._timeline.break_packet()

    def _read_silent_frame(self, packet: av.Packet) -> tuple[int, int] | None:
        """The rate and samples of a frame of AMR that holds no speech (SID, NO_DATA): discontinuous transmission, not loss;
        FFmpeg refuses it."""
        modes = self._speech_modes
        if modes is None or not packet.size:
            return None
        mode = bytes(packet)[0] >> 3 & 15
        if mode < modes:
            return None
        rate_hz = self._stream.codec_context.sample_rate
        if mode == _AMR_SPEECH_LOST:
            self._timeline.miss(_AMR_FRAME_S)
            return rate_hz, 0
        return rate_hz, round(_AMR_FRAME_S * rate_hz)

    def _read_start(self, frame: av.AudioFrame, packet: av.Packet) -> float | None:
        """The time of ``frame`` by the clock of its container, if that has one."""
        pts = None if self._bare is not None else frame.pts
        if pts is None:
            return None
        if self._units is None or not packet.size:  # what is left in the decoder at the end may have no clock
            base = frame.time_base
            self._units = (base.numerator, base.denominator) if base else None
        return pts * self._units[0] / self._units[1] if self._units else None

    def _place(self, start_s: float | None, rate_hz: int, channels: int, samples: int) -> float:
        """The seconds of silence to put before so many samples."""
        timeline, shape = self._timeline, (rate_hz, channels)
        is_seam = self._bare is not None and self._bare.pass_seam()
        if (is_seam or (self._format is not None and self._format != shape)) and timeline.decoded_s:
            timeline.repairs.add("joined")
        self._format = shape
        return timeline.place(start_s, samples / rate_hz)

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
        least = max(4 * self._largest, _LEAST_UNREAD * len(self._data), _PES_BYTES if self._container in TRANSPORT else 0)
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


def _make_silence(seconds: float, rate_hz: int, channels: int) -> Iterator[RatedBlock]:
    for block in make_silence(seconds, rate_hz, channels):
        yield rate_hz, block
