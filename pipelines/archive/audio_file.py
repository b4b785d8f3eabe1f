"""Audio files to samples: libsndfile first, FFmpeg for what it does not read and for what it finds damaged, and for MP3:
libsndfile stops at the length that an MP3's first frame announces, which is a guess, or too little where files were joined.

Truncated files give what is there. Damage in the middle that a decoder reports is an error, not a shorter recording:
words would be lost, and the time axis shift, without anybody noticing.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import av
import numpy as np
import soundfile

from pipelines.archive.containers import DEMUXERS, name_container
from pipelines.archive.limits import check_format, check_length, check_not_empty
from pipelines.errors import CorruptAudio, TranscriptionError, UnsupportedCodec
from pipelines.records import AudioFormat, DecodedAudio

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


def decode_audio_file(data: bytes, container: str, recording_id: str) -> DecodedAudio:
    """All channels of the (first) sound track of ``data``, float32 ``(channels, frames)`` in [-1, 1] at the stored rate.

    ``container`` is what ``sniff`` said. Raises CorruptAudio, NoAudio, UnsupportedCodec or TooLong.
    """
    if container in _SOUNDFILE:
        try:
            samples, stored = _read_with_soundfile(data, container, recording_id)
        except (soundfile.SoundFileError, ValueError, OverflowError):
            samples, stored = _read_with_ffmpeg(data, container, recording_id)
            if samples.shape[1] == 0:
                raise CorruptAudio(recording_id, f"it starts like {stored.container} but nothing can be decoded") from None
        if samples.shape[1] == 0 and container == "wav":  # a recorder that died before it wrote the length leaves 0
            samples, stored = _read_unclosed_wav(data, recording_id, (samples, stored))
    else:
        samples, stored = _read_with_ffmpeg(data, container, recording_id)
    check_not_empty(recording_id, samples.shape[1])
    return DecodedAudio(_check_finite(samples, recording_id), stored)


class _Source(io.BytesIO):
    """Bytes that libsndfile may seek in as it likes: where a damaged header sends it before the start, an exception inside its
    callback would be printed with its traceback. At the start instead, it sees for itself that this is not where it asked."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self.getbuffer().nbytes}[whence]
        return super().seek(max(base + offset, 0))


def _read_with_soundfile(data: bytes, container: str, recording_id: str) -> tuple[np.ndarray, AudioFormat]:
    with soundfile.SoundFile(_Source(data)) as file:
        check_format(recording_id, file.samplerate, file.channels)
        blocks, frames = [], 0
        while len(block := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
            frames += len(block)
            check_length(recording_id, frames, file.samplerate, file.channels)
            blocks.append(block.T)
        codec, bits = _name_codec(file, data)
        stored = AudioFormat(name_container(container) or container, codec, file.samplerate, file.channels, bits)
        return _join(blocks, file.channels), stored


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


def _read_unclosed_wav(data: bytes, recording_id: str, empty: tuple[np.ndarray, AudioFormat]) -> tuple[np.ndarray, AudioFormat]:
    """FFmpeg takes a length of 0 for "until the end"; ``empty`` if there really is nothing."""
    try:
        return _read_with_ffmpeg(data, "wav", recording_id)
    except TranscriptionError:
        return empty


def _read_with_ffmpeg(data: bytes, container: str, recording_id: str) -> tuple[np.ndarray, AudioFormat]:
    try:
        with av.open(io.BytesIO(data), mode="r", format=DEMUXERS[container], metadata_errors="replace") as file:
            if not file.streams.audio:
                raise CorruptAudio(recording_id, f"the {name_container(container)} container holds no readable sound track")
            stream = file.streams.audio[0]
            # PyAV types it as never None; a track whose coding FFmpeg does not know has none
            context = getattr(stream, "codec_context", None)
            if context is None:
                raise UnsupportedCodec(
                    recording_id,
                    f"the coding inside the {name_container(container)} container is unknown; convert it to PCM WAV",
                )
            blocks: list[np.ndarray] = []
            frames, rate_hz, channels = 0, 0, 0
            for block, block_rate_hz in _iterate_blocks(file, stream, recording_id):
                if not blocks:
                    rate_hz, channels = block_rate_hz, len(block)
                    check_format(recording_id, rate_hz, channels)
                elif (rate_hz, channels) != (block_rate_hz, len(block)):
                    raise CorruptAudio(recording_id, "the sampling rate or the number of channels changes inside the recording")
                frames += block.shape[1]
                check_length(recording_id, frames, rate_hz, channels)
                blocks.append(block)
            stored = AudioFormat(name_container(container) or container, context.codec.canonical_name, rate_hz, channels)
            return _join(blocks, channels), stored
    except av.error.DecoderNotFoundError:
        raise UnsupportedCodec(
            recording_id, f"no decoder for the coding inside the {name_container(container)} container; convert it to PCM WAV"
        ) from None
    except (av.error.FFmpegError, ValueError, OverflowError) as error:
        raise CorruptAudio(
            recording_id, f"it starts like {name_container(container)} but cannot be decoded ({type(error).__name__})"
        ) from None


def _iterate_blocks(
    file: av.container.InputContainer, stream: av.AudioStream, recording_id: str
) -> Iterator[tuple[np.ndarray, int]]:
    """Decoded frames as float32 ``(channels, frames)`` with their rate; broken packets are forgiven at the very end only."""
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
            for planar in av.AudioResampler(format="fltp").resample(frame):  # same rate and channels, only the layout in memory
                yield planar.to_ndarray().astype(np.float32, copy=False), planar.sample_rate


def _join(blocks: list[np.ndarray], channels: int) -> np.ndarray:
    return np.concatenate(blocks, axis=1) if blocks else np.zeros((channels, 0), dtype=np.float32)


def _check_finite(samples: np.ndarray, recording_id: str) -> np.ndarray:
    """Refuses NaN and infinity: only a broken writer or a damaged file makes them, and putting silence in their place would
    hide that something is lost. Float files may legally go beyond full scale: clipped, as any player does."""
    bad = samples.size - int(np.count_nonzero(np.isfinite(samples)))
    if bad:
        raise CorruptAudio(recording_id, f"{bad} of {samples.size} samples are not finite numbers; export the recording again")
    return np.clip(samples, -1.0, 1.0, out=samples)
