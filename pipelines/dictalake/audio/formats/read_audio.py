"""Turns the bytes of one recording into audio. The content decides what it is, and the name only where it says nothing."""

from __future__ import annotations

from dataclasses import replace

from dictalake.audio.formats.audio_file import decode_audio_file
from dictalake.audio.formats.containers import DICOM, NOT_AUDIO, REFUSED, UNKNOWN
from dictalake.audio.formats.dicom import decode_dicom
from dictalake.audio.formats.grundig import decode_grundig
from dictalake.audio.formats.headerless import decode_headerless, refuse_unnamed
from dictalake.audio.formats.reader import Consume, DecodeSession, DicomOptions, join_blocks
from dictalake.audio.formats.sniff import find_start, is_tag, is_tellable_text, name_container, sniff
from dictalake.config.headerless import Headerless
from dictalake.config.sections import Limits
from dictalake.errors import EmptyObject, NotAudio, UnsupportedContainer
from dictalake.records import DecodedAudio

_REST_BYTES = 200  # more than that may be frames
_BARE = ("mp3", "aac", "amr", "ac3", "eac3", "latm")  # streams of frames, of which any may be the first

__all__ = ["decode_audio_file", "decode_dicom", "read_audio", "sniff"]


def read_audio(
    data: bytes,
    recording_id: str,
    limits: Limits | None = None,
    consume: Consume = join_blocks,
    ending: str = "",
    headerless: Headerless | None = None,
    dicom: DicomOptions = DicomOptions(),  # noqa: B008
) -> DecodedAudio:
    """The audio in ``data``, whatever it is called: sniffed, then decoded by the reader of its container.

    ``consume`` takes float32 blocks ``(channels, frames)`` in [-1, 1] at the stored rate, or int16 ones at 16 kHz. By default
    they are joined. Bytes of no known format are read as ``headerless`` says. Without it, ``ending`` (that of the name:
    ``ul``) tells what they may be. Only ``audio/load.py`` calls this outside tests.

    Raises EmptyObject, NotAudio, UnsupportedContainer, UnsupportedCodec, CorruptAudio, NoAudio, TooLong, TooManyChannels or
    TooLarge, and nothing else whatever the bytes are.
    """
    session = DecodeSession(recording_id, limits or Limits(), consume, dicom)  # type: ignore[call-arg]
    if not data:
        raise EmptyObject(
            recording_id, "the object has no bytes; the upload or the recorder stopped before anything was written"
        )
    start, container = find_start(data)
    if container in REFUSED:
        raise UnsupportedContainer(recording_id, f"this is {REFUSED[container]}")
    if container == DICOM:
        return decode_dicom(data, session, _read_file)
    if container == "grundig_dss":
        return decode_grundig(data, session)
    if name_container(container) is not None:
        return _read_file(data, session, (start, container))
    if container == UNKNOWN or (container == "text" and not is_tellable_text(data)):
        if headerless is not None:
            return decode_headerless(data, headerless, session)
        if (refusal := refuse_unnamed(recording_id, ending)) is not None:
            raise refusal
    what = NOT_AUDIO.get(container)
    raise NotAudio(
        recording_id,
        f"{'the bytes are of no format that is known here' if what is None else f'this is {what}'}, whatever its name says",
    )


def _read_file(data: bytes, session: DecodeSession, found: tuple[int, str] | None = None) -> DecodedAudio:
    """An audio file from where it begins in ``data``. A tag before it is lawful; for other bytes the row has a word."""
    start, container = found or find_start(data)
    audio = decode_audio_file(data[start:] if start else data, container, session)
    if not start or is_tag(data, start):
        return audio
    account = audio.account.also("leading_bytes")
    if start > _REST_BYTES and container in _BARE and not is_tellable_text(data[:start]) and data[:start].strip(b"\0"):
        account = replace(account, lost_s=None)  # frames that are damaged, or of something else: nobody can tell
    return replace(audio, account=account)
