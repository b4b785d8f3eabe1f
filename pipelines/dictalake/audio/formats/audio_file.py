"""Audio files to samples, with an account of their time.

An object is first taken apart into the files that follow one another in it, each with a header that tells the truth. libsndfile
reads whole files of the formats that it knows; FFmpeg reads damaged ones, and all others, on the clock of their container. MP3
is FFmpeg's too: libsndfile stops at the length that the first frame announces, which is a guess.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import soundfile

from dictalake.audio.formats.account import add_accounts
from dictalake.audio.formats.amr_frames import split_amr
from dictalake.audio.formats.ffmpeg_reader import read_with_ffmpeg
from dictalake.audio.formats.flac_frames import split_flac
from dictalake.audio.formats.flac_reader import read_damaged_flac
from dictalake.audio.formats.limits import check_loss, check_not_empty
from dictalake.audio.formats.ogg_pages import split_ogg
from dictalake.audio.formats.parts import Part
from dictalake.audio.formats.pcm_headers import split_pcm
from dictalake.audio.formats.reader import DecodeSession
from dictalake.audio.formats.signatures import split_at_signatures
from dictalake.audio.formats.sniff import name_container
from dictalake.audio.formats.soundfile_reader import READS, read_with_soundfile
from dictalake.audio.formats.voc_blocks import split_voc
from dictalake.audio.formats.wav_chunks import split_wav
from dictalake.errors import CorruptAudio
from dictalake.records import Account, DecodedAudio

_SPLITTERS: dict[str, Callable[[bytes], list[Part]]] = {
    "wav": split_wav,
    "w64": split_wav,
    "flac": split_flac,
    "ogg": split_ogg,
    "amr": split_amr,
    "aiff": lambda data: split_pcm(data, "aiff"),
    "au": lambda data: split_pcm(data, "au"),
    "caf": lambda data: split_pcm(data, "caf"),
    "voc": split_voc,
}
_LOSSES = {"damaged", "cut_end", "hole"}
_CLOSES_WITHIN_S = 0.05  # codecs may add or leave out a part of their last packet


def decode_audio_file(data: bytes, container: str, session: DecodeSession) -> DecodedAudio:
    """All channels of all sound tracks of ``data``, as ``session.consume`` keeps them, with the account of its time.

    ``container`` is what ``sniff`` said. Raises CorruptAudio, NoAudio, UnsupportedCodec, TooLong or TooManyChannels.
    """
    split = _SPLITTERS.get(container)
    parts = split(data) if split is not None else split_at_signatures(data, container)
    parts = parts or [Part(data, is_whole=container not in ("flac", "ogg"))]
    read = _read_parts(parts, container, session)
    audio, frames = _join(parts, read, session)
    account = audio.account
    sounding = [number for number, (_, count) in enumerate(read) if count]
    if len({parts[number].link if parts[number].link is not None else -1 - number for number in sounding}) > 1:
        account = account.also("joined")
    if frames == 0 and (set(account.repairs) & _LOSSES or any(part.unread for part in parts)):
        raise CorruptAudio(session.recording_id, f"it starts like {audio.format.container} but nothing can be decoded")
    check_not_empty(session.recording_id, frames)
    check_loss(session.recording_id, account, frames / audio.format.sample_rate_hz, session.limits)
    return replace(audio, account=account)


def _read_parts(parts: list[Part], container: str, session: DecodeSession) -> list[tuple[DecodedAudio, int]]:
    """Each part; a second time where another has a higher rate."""
    read: list[tuple[DecodedAudio, int]] = []
    least = (0, 0)
    while True:
        before_s = 0.0
        read = []
        for part in parts:
            audio, frames = _read_part(part, container, session, before_s, least)
            read.append((audio, frames))
            before_s += frames / (audio.format.sample_rate_hz or 1)
        rates_hz = {audio.format.sample_rate_hz for audio, frames in read if frames}
        if len(rates_hz) <= 1:
            return read
        least = (max(rates_hz), 0)


def _read_part(
    part: Part, container: str, session: DecodeSession, before_s: float, least: tuple[int, int]
) -> tuple[DecodedAudio, int]:
    if part.container is not None:
        audio, frames = _read_part(replace(part, container=None), part.container, session, before_s, least)
        name = name_container(container) or container
        return replace(audio, format=replace(audio.format, container=name)), frames
    if part.is_whole and container in READS:
        try:
            audio, frames = read_with_soundfile(part.data, container, session, before_s, least)
        except (soundfile.SoundFileError, ValueError, OverflowError):
            pass
        else:
            length_s = frames / audio.format.sample_rate_hz
            if part.seconds is None or abs(length_s - part.seconds) <= _CLOSES_WITHIN_S:
                return replace(audio, account=part.account), frames
    if container == "flac":
        audio, frames = read_damaged_flac(part.data, session, before_s, least)
        if frames:
            return replace(audio, account=add_accounts([part.account, audio.account])), frames
    # Pages with numbers and checksums only jump where bytes are damaged, and a clock that counts samples, too.
    is_stretch = part.ends_at_s is not None
    is_damaged = container == "flac" or (container == "ogg" and not part.is_whole)
    audio, frames = read_with_ffmpeg(
        part.data,
        container,
        session,
        before_s,
        least,
        is_damaged=is_damaged,
        begins_at_zero=part.starts_late and not is_stretch,
        has_clock=not is_stretch,
    )
    return replace(audio, account=_close(part, audio.account, frames, audio.format.sample_rate_hz)), frames


def _close(part: Part, decoded: Account, frames: int, rate_hz: int) -> Account:
    """The account of a part: of its header, of what was decoded, and of the bytes at its end that nothing reads."""
    account = add_accounts([part.account, decoded])
    if not part.unread or not frames:
        return account.also("damaged") if part.unread else account
    # At the average of the bytes that could be read
    lost_s = part.unread * frames / rate_hz / max(len(part.data), 1)
    return account.also("cut_end" if part.is_cut else "damaged", lost_s=lost_s, broken_s=0.0 if part.is_cut else lost_s)


def _join(parts: list[Part], read: list[tuple[DecodedAudio, int]], session: DecodeSession) -> tuple[DecodedAudio, int]:
    """What was read of all parts, one after another, with silence between the stretches of a damaged file."""
    account = add_accounts([one.account for one, _ in read])
    sounding = [(part, audio, frames) for part, (audio, frames) in zip(parts, read, strict=True) if frames]
    if not sounding:
        return replace(read[0][0], account=account), 0
    first, rate_hz = sounding[0][1], sounding[0][1].format.sample_rate_hz
    channels = max(len(audio.samples) for _, audio, _ in sounding)
    pieces: list[np.ndarray] = []
    total, at_s, link = 0, 0.0, None
    for part, audio, frames in sounding:
        length_s = frames / rate_hz
        starts_s = None if part.ends_at_s is None else part.ends_at_s - length_s
        if part.link is None or part.link != link:
            # Where a file begins by its own clock, unless sound is missing before that.
            link, at_s = part.link, 0.0 if part.starts_late or starts_s is None else starts_s
        elif starts_s is not None:
            account = account.also("damaged")
        gap_s = 0.0 if starts_s is None else starts_s - at_s
        if total / rate_hz + gap_s > session.limits.duration_h * 3600:
            account, gap_s = replace(account.also("clock_reset"), lost_s=None), 0.0
        elif gap_s > _CLOSES_WITHIN_S:
            account = account.also("damaged", lost_s=gap_s, broken_s=gap_s)
            # ``consume`` may have changed the rate.
            silence = round(gap_s * rate_hz * audio.samples.shape[1] / frames)
            pieces.append(np.zeros((channels, silence), audio.samples.dtype))
            total += round(gap_s * rate_hz)
            at_s += gap_s
        pieces.append(np.pad(audio.samples, ((0, channels - len(audio.samples)), (0, 0))))
        total += frames
        at_s += length_s
    if len(pieces) == 1:
        return replace(first, account=account), total
    joined = np.concatenate(pieces, axis=1)
    return replace(first, samples=joined, format=replace(first.format, channels=channels), account=account), total
