"""Headerless sound to samples: µ-law, A-law, linear PCM, G.722, GSM 06.10 and Dialogic ADPCM (VOX).

Any bytes at all are valid in most of these, so the user has to know: ``archive.headerless`` says what an ending means.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import av
import numpy as np
import soundfile

from dictalake.audio.formats.g711 import expand_a_law, expand_mu_law
from dictalake.audio.formats.limits import check_format, check_loss, check_not_empty
from dictalake.audio.formats.reader import DecodeSession
from dictalake.config.headerless import STORED_CODECS, USUAL, Headerless
from dictalake.errors import CorruptAudio, UnsupportedContainer
from dictalake.records import CLOSED, Account, AudioFormat, DecodedAudio

_BLOCK_BYTES = 2**18
_BITS = {"mu_law": 8, "a_law": 8, "pcm_s16le": 16, "pcm_s16be": 16, "pcm_s8": 8, "pcm_u8": 8, "vox": 4}  # a sample
_SAMPLES: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # uint8 codes → float32 samples
    "mu_law": expand_mu_law,
    "a_law": expand_a_law,
    "pcm_s16le": lambda codes: codes.view("<i2").astype(np.float32) / 2**15,
    "pcm_s16be": lambda codes: codes.view(">i2").astype(np.float32) / 2**15,
    "pcm_s8": lambda codes: codes.view(np.int8).astype(np.float32) / 2**7,
    "pcm_u8": lambda codes: (codes.astype(np.float32) - 2**7) / 2**7,
}
_GSM_BYTES, _GSM_SAMPLES = 33, 160
_GSM_SILENCE = np.frombuffer(bytes.fromhex("d820a2e15a50" + "00492492492450" * 3 + "004924924924"), np.uint8)


def decode_headerless(data: bytes, entry: Headerless, session: DecodeSession) -> DecodedAudio:
    """``data``, coded as ``entry`` says. Raises UnsupportedCodec, TooManyChannels, TooLong, NoAudio or CorruptAudio."""
    check_format(session.recording_id, entry.rate_hz, entry.channels, session.limits)
    account = CLOSED
    blocks: Iterator[np.ndarray]
    if entry.codec in _SAMPLES:
        step = entry.channels * (2 if entry.codec.startswith("pcm_s16") else 1)
        account, blocks = _account_for_rest(len(data) % step), _expand(data, entry, step)
    elif entry.codec == "g722":
        blocks = _decode_g722(data)
    elif entry.codec == "gsm":
        account, blocks = _decode_gsm(data, entry.rate_hz, session.recording_id)
    else:
        blocks = _decode_raw(data, "VOX_ADPCM", entry.rate_hz)
    samples, frames = session.take(entry.rate_hz, blocks)
    check_not_empty(session.recording_id, frames)
    check_loss(session.recording_id, account, frames / entry.rate_hz, session.limits)
    codec, bits = STORED_CODECS[entry.codec], _BITS.get(entry.codec)
    container = "vox" if entry.codec == "vox" else "headerless"
    return DecodedAudio(samples, AudioFormat(container, codec, entry.rate_hz, entry.channels, bits), account=account)


def refuse_unnamed(recording_id: str, ending: str) -> UnsupportedContainer | None:
    """The error for bytes of no known kind whose name ends as headerless sound does; None for any other ending."""
    usual = USUAL.get(ending)
    if usual is None:
        return None
    words = {"codec": usual.codec or "pcm_s16le", "rate_hz": usual.rate_hz or 8_000}
    missing = ", ".join(f"{key}: {words[key]}" for key in ("codec", "rate_hz") if getattr(usual, key) is None)
    advice = f"set archive.headerless to {{{ending}: {{{missing}}}}}"
    return UnsupportedContainer(
        recording_id,
        f"this is headerless {usual.title} by its name, and nothing in it says so; to read such files, {advice}"
        + (", or what else you know of them" if missing else ""),
    )


def _account_for_rest(rest_bytes: int) -> Account:
    """Bytes behind the last whole sample of all channels."""
    return CLOSED.also("trailing_bytes") if rest_bytes else CLOSED


def _expand(data: bytes, entry: Headerless, step: int) -> Iterator[np.ndarray]:
    for at in range(0, len(data) - step + 1, _BLOCK_BYTES // step * step):
        codes = np.frombuffer(data[at : at + _BLOCK_BYTES // step * step], np.uint8)
        samples = _SAMPLES[entry.codec](codes[: len(codes) // step * step])
        yield samples.reshape(-1, entry.channels).T


def _decode_g722(data: bytes) -> Iterator[np.ndarray]:
    context = av.CodecContext.create("g722", "r")
    for at in range(0, len(data), _BLOCK_BYTES):
        for frame in context.decode(av.Packet(data[at : at + _BLOCK_BYTES])):
            yield frame.to_ndarray().reshape(1, -1).astype(np.float32) / 2**15


def _decode_gsm(data: bytes, rate_hz: int, recording_id: str) -> tuple[Account, Iterator[np.ndarray]]:
    """Each frame begins with the half byte D. Silence stands for those that do not, and they are lost."""
    frames = np.frombuffer(data[: len(data) // _GSM_BYTES * _GSM_BYTES], np.uint8).reshape(-1, _GSM_BYTES)
    broken = frames[:, 0] >> 4 != 0xD
    if 2 * np.count_nonzero(broken) > len(frames):
        raise CorruptAudio(recording_id, "the bytes are not frames of GSM 06.10, as the name and archive.headerless say")
    account = _account_for_rest(len(data) % _GSM_BYTES)
    if broken.any():
        lost_s = float(np.count_nonzero(broken)) * _GSM_SAMPLES / rate_hz
        account = account.also("damaged", lost_s=lost_s, broken_s=lost_s)
        frames = np.where(broken[:, None], _GSM_SILENCE, frames)

    def blocks() -> Iterator[np.ndarray]:
        at = 0
        for block in _decode_raw(frames.tobytes(), "GSM610", rate_hz):
            silent = np.repeat(broken, _GSM_SAMPLES)[at : at + block.shape[1]] if broken.any() else np.zeros(0, bool)
            block[0, : len(silent)][silent] = 0.0
            at += block.shape[1]
            yield block

    return account, blocks()


def _decode_raw(data: bytes, subtype: str, rate_hz: int) -> Iterator[np.ndarray]:
    with soundfile.SoundFile(io.BytesIO(data), format="RAW", subtype=subtype, samplerate=rate_hz, channels=1) as file:
        while len(block := file.read(_BLOCK_BYTES, dtype="float32", always_2d=True)):
            yield block.T
