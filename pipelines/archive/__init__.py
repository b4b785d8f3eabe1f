"""The archive: finding recordings, fetching their bytes, and turning bytes into audio, by content and never by name."""

from __future__ import annotations

from pipelines.archive.audio_file import decode_audio_file
from pipelines.archive.containers import DICOM, name_container, sniff
from pipelines.archive.dicom import decode_dicom
from pipelines.errors import EmptyObject, NotAudio, UnsupportedContainer
from pipelines.records import DecodedAudio

# Audio, or something that may hold audio, that dictalake does not open: what it is, and what to do.
UNSUPPORTED = {
    "ds2": "an Olympus/Philips DS2 dictation, which no free decoder reads; export it as WAV with the dictation software",
    "ds2_encrypted": "an encrypted DS2 dictation; decrypt it and export it as WAV with the dictation software and its password",
    "grundig_dss": "a Grundig DSS dictation, which is not read yet; export it as WAV with the dictation software",
    "midi": "MIDI notes, which hold no speech; leave it out with archive.include",
    "zip": "a ZIP archive; unpack it and put the files in it into the archive",
    "gzip": "gzip-compressed data; unpack it and put the file in it into the archive",
    "tar": "a TAR archive; unpack it and put the files in it into the archive",
}

__all__ = ["decode_audio_file", "decode_dicom", "read_audio", "sniff"]


def read_audio(data: bytes, recording_id: str) -> DecodedAudio:
    """The audio in ``data``, whatever it is called: sniffed, then decoded by the reader of its container.

    Returns float32 ``(channels, frames)`` at the stored rate. Raises EmptyObject, NotAudio, UnsupportedContainer,
    UnsupportedCodec, CorruptAudio, NoAudio or TooLong, and nothing else whatever the bytes are.
    """
    if not data:
        raise EmptyObject(
            recording_id, "the object has no bytes; the upload or the recorder stopped before anything was written"
        )
    container = sniff(data)
    if container in UNSUPPORTED:
        raise UnsupportedContainer(recording_id, f"this is {UNSUPPORTED[container]}")
    if container == DICOM:
        return decode_dicom(data, recording_id)
    kind = name_container(container)
    if kind is None:
        what = {"text": "this is text", "pdf": "this is a PDF document", "image": "this is a picture"}
        raise NotAudio(
            recording_id,
            f"{what.get(container, 'the bytes are of no audio format that is known here')}, whatever its name says",
        )
    return decode_audio_file(data, container, recording_id)
