"""Turns the bytes of one recording into audio. The content decides what it is, never the name; only VOX needs a hint."""

from __future__ import annotations

from dictalake.audio.formats.audio_file import decode_audio_file, decode_vox
from dictalake.audio.formats.dicom import decode_dicom
from dictalake.audio.formats.grundig import decode_grundig
from dictalake.audio.formats.reader import Consume, DecodeSession, DicomOptions, join_blocks
from dictalake.audio.formats.sniff import DICOM, name_container, sniff
from dictalake.config.sections import Limits
from dictalake.errors import EmptyObject, NotAudio, UnsupportedContainer
from dictalake.records import DecodedAudio

# Audio, or something that may hold audio, that dictalake does not open: what it is, and what to do.
UNSUPPORTED = {
    "ds2": "an Olympus/Philips DS2 dictation, which no free decoder reads; export it as WAV with the dictation software",
    "ds2_encrypted": "an encrypted DS2 dictation; decrypt it and export it as WAV with the dictation software and its password",
    "midi": "MIDI notes, which hold no speech; leave it out with archive.include",
    "zip": "a ZIP archive, and archive.expand is off; turn it on, or unpack it",
    "gzip": "gzip-compressed data, and archive.expand is off; turn it on, or unpack it",
    "tar": "a TAR archive, and archive.expand is off; turn it on, or unpack it",
}

__all__ = ["decode_audio_file", "decode_dicom", "read_audio", "sniff"]


def read_audio(
    data: bytes,
    recording_id: str,
    limits: Limits | None = None,
    consume: Consume = join_blocks,
    vox_rate_hz: int | None = None,
    dicom: DicomOptions = DicomOptions(),  # noqa: B008
) -> DecodedAudio:
    """The audio in ``data``, whatever it is called: sniffed, then decoded by the reader of its container.

    ``consume`` takes float32 blocks ``(channels, frames)`` in [-1, 1] at the stored rate; by default they are joined. With
    ``vox_rate_hz``, bytes of no known format count as headerless VOX. Only ``audio/load.py`` calls this outside tests. Raises
    EmptyObject, NotAudio, UnsupportedContainer, UnsupportedCodec, CorruptAudio, NoAudio, TooLong, TooManyChannels or TooLarge,
    and nothing else whatever the bytes are.
    """
    session = DecodeSession(recording_id, limits or Limits(), consume, dicom)  # type: ignore[call-arg]
    if not data:
        raise EmptyObject(
            recording_id, "the object has no bytes; the upload or the recorder stopped before anything was written"
        )
    container = sniff(data)
    if container in UNSUPPORTED:
        raise UnsupportedContainer(recording_id, f"this is {UNSUPPORTED[container]}")
    if container == DICOM:
        return decode_dicom(data, session, lambda inside, session: decode_audio_file(inside, sniff(inside), session))
    if container == "grundig_dss":
        return decode_grundig(data, session)
    if vox_rate_hz is not None and name_container(container) is None and container in ("unknown", "text"):
        return decode_vox(data, vox_rate_hz, session)
    if name_container(container) is None:
        what = {"text": "this is text", "pdf": "this is a PDF document", "image": "this is a picture"}
        raise NotAudio(
            recording_id,
            f"{what.get(container, 'the bytes are of no audio format that is known here')}, whatever its name says",
        )
    return decode_audio_file(data, container, session)
