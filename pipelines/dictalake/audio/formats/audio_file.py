"""Audio files to samples: libsndfile first, FFmpeg for what it does not read and for what it finds damaged, and for MP3:
libsndfile stops at the length that an MP3's first frame announces, which is a guess, or too little where files were joined.

Truncated files give what is there. Damage in the middle that a decoder reports is an error, not a shorter recording:
words would be lost, and the time axis shift, without anybody noticing.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import chain

import av
import numpy as np
import soundfile

from dictalake.audio.formats.codecs import OPEN_OPTIONS, check_codec, refuse_unknown_codec, refuse_without_track
from dictalake.audio.formats.limits import check_format, check_not_empty
from dictalake.audio.formats.reader import DecodeSession
from dictalake.audio.formats.sniff import DEMUXERS, name_container
from dictalake.errors import CorruptAudio, TranscriptionError
from dictalake.records import AudioFormat, DecodedAudio

_SOUNDFILE = {"wav", "w64", "flac", "ogg", "aiff", "au", "caf"}
_BLOCK_FRAMES = 2**18  # headers may announce any length, so memory grows with what really comes

# libsndfile's subtypes in FFmpeg's words (one vocabulary whichever library reads the file), and bits a sample.
_PCM = {"PCM_S8": ("s8", 8), "PCM_U8": ("u8", 8), "PCM_16": ("s16", 16), "PCM_24": ("s24", 24), "PCM_32": ("s32", 32)}
_FLOAT = {"FLOAT": ("f32", 32), "DOUBLE": ("f64", 64)}
_CODECS: dict[str, tuple[str, int | None]] = {
    "ULAW": ("pcm_mulaw", 8),
    "ALAW": ("pcm_alaw", 8),
    "IMA_ADPCM": ("adpcm_ima_wav", 4),
    "MS_ADPCM": ("adpcm_ms", 4),
    "GSM610": ("gsm_ms", None),
    "MPEG_LAYER_I": ("mp1", None),
    "MPEG_LAYER_II": ("mp2", None),
    "MPEG_LAYER_III": ("mp3", None),
    "ALAC_16": ("alac", 16),
    "ALAC_20": ("alac", 20),
    "ALAC_24": ("alac", 24),
    "ALAC_32": ("alac", 32),
}


def decode_audio_file(data: bytes, container: str, session: DecodeSession) -> DecodedAudio:
    """All channels of the (first) sound track of ``data``, as ``session.consume`` keeps them.

    ``container`` is what ``sniff`` said. Raises CorruptAudio, NoAudio, UnsupportedCodec, TooLong or TooManyChannels.
    """
    if container in _SOUNDFILE:
        try:
            audio, frames = _read_with_soundfile(data, container, session)
        except (soundfile.SoundFileError, ValueError, OverflowError):
            audio, frames = _read_with_ffmpeg(data, container, session)
            if frames == 0:
                raise CorruptAudio(
                    session.recording_id, f"it starts like {audio.format.container} but nothing can be decoded"
                ) from None
        if frames == 0 and container == "wav":  # a recorder that died before it wrote the length leaves 0
            audio, frames = _read_unclosed_wav(data, session, audio)
    else:
        audio, frames = _read_with_ffmpeg(data, container, session)
    check_not_empty(session.recording_id, frames)
    return audio


class _Source(io.BytesIO):
    """Bytes that libsndfile may seek in as it likes: where a damaged header sends it before the start, an exception inside its
    callback would be printed with its traceback. At the start instead, it sees for itself that this is not where it asked."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self.getbuffer().nbytes}[whence]
        return super().seek(max(base + offset, 0))


def _read_with_soundfile(data: bytes, container: str, session: DecodeSession) -> tuple[DecodedAudio, int]:
    with soundfile.SoundFile(_Source(data)) as file:
        check_format(session.recording_id, file.samplerate, file.channels, session.limits)
        codec, bits = _name_codec(file, data)
        check_codec(session.recording_id, codec)
        stored = AudioFormat(name_container(container) or container, codec, file.samplerate, file.channels, bits)
        samples, frames = session.take(file.samplerate, _blocks_of(file))
        return DecodedAudio(samples, stored), frames


def _blocks_of(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    while len(block := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
        yield block.T


def _name_codec(file: soundfile.SoundFile, data: bytes) -> tuple[str, int | None]:
    subtype = str(file.subtype)
    if file.format == "FLAC":
        return "flac", _PCM[subtype][1]
    if subtype in _PCM or subtype in _FLOAT:
        name, bits = {**_PCM, **_FLOAT}[subtype]
        big = file.format in ("AIFF", "AU", "CAF") or data[:4] == b"RIFX"
        # an AIFF, AU or CAF file may say that it is little-endian, and is then shown as such
        order = "" if bits == 8 else ("be" if big and file.endian != "LITTLE" else "le")
        return f"pcm_{name}{order}", bits
    return _CODECS.get(subtype, (subtype.lower(), None))


def _read_unclosed_wav(data: bytes, session: DecodeSession, empty: DecodedAudio) -> tuple[DecodedAudio, int]:
    """FFmpeg takes a length of 0 for "until the end"; ``empty`` if there really is nothing."""
    try:
        return _read_with_ffmpeg(data, "wav", session)
    except TranscriptionError:
        return empty, 0


def _read_with_ffmpeg(data: bytes, container: str, session: DecodeSession) -> tuple[DecodedAudio, int]:
    name, recording_id = name_container(container) or container, session.recording_id
    try:
        demuxer, source = DEMUXERS[container], io.BytesIO(data)
        with av.open(source, mode="r", format=demuxer, metadata_errors="replace", options=OPEN_OPTIONS) as file:
            if not file.streams.audio:
                raise refuse_without_track(recording_id, [each.type for each in file.streams], name)
            stream = file.streams.audio[0]
            # PyAV types it as never None; a track whose coding FFmpeg does not know has none
            context = getattr(stream, "codec_context", None)
            if context is None:
                raise refuse_unknown_codec(recording_id, data, container, name)
            check_codec(recording_id, context.codec.canonical_name)
            decoded = _iterate_frames(file, stream, recording_id)
            first = next(decoded, None)
            if first is None:
                return DecodedAudio(np.zeros((0, 0), np.float32), AudioFormat(name, context.codec.canonical_name, 0, 0)), 0
            rate_hz, channels = first.sample_rate, first.layout.nb_channels
            check_format(recording_id, rate_hz, channels, session.limits)
            blocks = _planar_blocks(chain([first], decoded), rate_hz, channels, recording_id)
            samples, frames = session.take(rate_hz, blocks)
            return DecodedAudio(samples, AudioFormat(name, context.codec.canonical_name, rate_hz, channels)), frames
    except av.error.DecoderNotFoundError:
        raise refuse_unknown_codec(recording_id, data, container, name) from None
    except (av.error.FFmpegError, ValueError, OverflowError) as error:
        raise CorruptAudio(recording_id, f"it starts like {name} but cannot be decoded ({type(error).__name__})") from None


def _iterate_frames(file: av.container.InputContainer, stream: av.AudioStream, recording_id: str) -> Iterator[av.AudioFrame]:
    """Decoded frames; broken packets are forgiven at the very end only."""
    broken = 0
    for packet in file.demux(stream):
        try:
            decoded = packet.decode()
        except av.error.EOFError:
            break
        except av.error.FFmpegError:
            broken += 1
            continue
        for frame in decoded:
            if broken:
                raise CorruptAudio(recording_id, f"{broken} packets in the middle of the recording cannot be decoded")
            yield frame


def _planar_blocks(frames: Iterable[av.AudioFrame], rate_hz: int, channels: int, recording_id: str) -> Iterator[np.ndarray]:
    """float32 ``(channels, frames)``. The resampler changes the layout in memory alone, so it holds nothing back."""
    resampler, stored = None, ("", "")
    for frame in frames:
        if (frame.sample_rate, frame.layout.nb_channels) != (rate_hz, channels):
            raise CorruptAudio(recording_id, "the sampling rate or the number of channels changes inside the recording")
        if resampler is None or stored != (frame.format.name, frame.layout.name):
            resampler, stored = av.AudioResampler(format="fltp"), (frame.format.name, frame.layout.name)
        for planar in resampler.resample(frame):
            yield planar.to_ndarray().astype(np.float32, copy=False)
