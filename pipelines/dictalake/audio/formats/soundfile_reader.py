"""Sound through libsndfile: the fast way for whole files of the formats that it knows. It keeps no account."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import soundfile

from dictalake.audio.formats.codecs import check_codec
from dictalake.audio.formats.joining import unify
from dictalake.audio.formats.limits import check_format
from dictalake.audio.formats.reader import DecodeSession, to_float
from dictalake.audio.formats.sniff import name_container
from dictalake.records import SAMPLE_RATE_HZ, AudioFormat, DecodedAudio

READS = {"wav", "w64", "flac", "ogg", "aiff", "au", "caf"}
_BLOCK_FRAMES = 2**16  # headers may announce any length, so memory grows with what really comes

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

_APPLE: dict[str, tuple[str, int | None]] = {"IMA_ADPCM": ("adpcm_ima_qt", 4), "GSM610": ("gsm", None)}  # other packing


def read_with_soundfile(
    data: bytes,
    container: str,
    session: DecodeSession,
    before_s: float = 0.0,
    least: tuple[int, int] = (0, 0),
) -> tuple[DecodedAudio, int]:
    """The samples of ``data``, and how many frames. ``least`` are a rate in Hz and a channel count that are wanted at least.

    Raises soundfile.SoundFileError, ValueError or OverflowError where libsndfile gives up (in FLAC also for a frame with a
    wrong checksum), and what the limits say.
    """
    with soundfile.SoundFile(_Source(data)) as file:
        check_format(session.recording_id, file.samplerate, file.channels, session.limits)
        codec, bits = _name_codec(file, data)
        check_codec(session.recording_id, codec)
        rate_hz, channels = max(file.samplerate, least[0]), max(file.channels, least[1])
        stored = AudioFormat(name_container(container) or container, codec, rate_hz, channels, bits)
        # 16-bit PCM at the models' rate stays what it is: nothing has to be computed from it.
        is_done = file.samplerate == SAMPLE_RATE_HZ and (rate_hz, channels) == (file.samplerate, file.channels)
        blocks = _blocks_of(file, is_done)
        if (rate_hz, channels) != (file.samplerate, file.channels):
            blocks = unify(((file.samplerate, block) for block in blocks), rate_hz, channels)
        samples, frames = session.take(rate_hz, blocks, before_s)
        return DecodedAudio(samples, stored), frames


class _Source(io.BytesIO):
    """Bytes that libsndfile may seek in as it likes: where a damaged header sends it before the start, an exception inside its
    callback would be printed with its traceback. At the start instead, it sees for itself that this is not where it asked."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self.getbuffer().nbytes}[whence]
        return super().seek(max(base + offset, 0))


def _blocks_of(file: soundfile.SoundFile, keeps_int16: bool) -> Iterator[np.ndarray]:
    """libsndfile's own way from int16 to float32 gives the same numbers in four times the time."""
    dtype = "int16" if file.subtype == "PCM_16" else "float32"
    while len(block := file.read(_BLOCK_FRAMES, dtype=dtype, always_2d=True)):
        yield (block if keeps_int16 else to_float(block)).T


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
    if file.format in ("AIFF", "CAF") and subtype in _APPLE:
        return _APPLE[subtype]
    return _CODECS.get(subtype, (subtype.lower(), None))
