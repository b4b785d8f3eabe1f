"""Small real files for the tests of the archive room: tones in every container, DICOM objects of every interpretation."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import soundfile
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

BASIC_VOICE = "1.2.840.10008.5.1.4.1.1.9.4.1"
GENERAL_AUDIO = "1.2.840.10008.5.1.4.1.1.9.4.2"


def make_tone(seconds: float = 1.0, rate_hz: int = 16_000, channels: int = 1) -> np.ndarray:
    """float64 ``(frames, channels)``, at most 0.5; each channel has its own pitch. Exact in 16 bits."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    tones = [0.5 * np.sin(2 * np.pi * (440 + 110 * channel) * time) for channel in range(channels)]
    return np.rint(np.stack(tones, axis=1) * 32768) / 32768


def encode(tone: np.ndarray, rate_hz: int, container: str, subtype: str | None = None, endian: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone, rate_hz, format=container, subtype=subtype, endian=endian)
    return buffer.getvalue()


def make_group(payload: bytes, interpretation: str, frames: int, channels: int = 1, **changes: Any) -> Dataset:
    """One multiplex group without a ChannelDefinitionSequence, as real files are; a change to None removes the element."""
    item = Dataset()
    item.WaveformOriginality = "ORIGINAL"
    item.NumberOfWaveformChannels = channels
    item.NumberOfWaveformSamples = frames
    item.SamplingFrequency = "8000"
    item.WaveformBitsAllocated = 8 if interpretation in ("UB", "SB", "MB", "AB") else 16
    item.WaveformSampleInterpretation = interpretation
    item.add_new(0x54001010, "OW" if item.WaveformBitsAllocated == 16 else "OB", payload)
    _change(item, changes)
    return item


def make_dicom(
    *groups: Dataset, syntax: str = ExplicitVRLittleEndian, preamble: bool = True, more: Dataset | None = None, **changes: Any
) -> bytes:
    """A DICOM audio object of one patient named CANARY, with the elements of ``more``; a change to None removes the element."""
    dataset = Dataset()
    dataset.SOPClassUID = BASIC_VOICE
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.StudyInstanceUID = "1.2.3"
    dataset.SeriesInstanceUID = "1.2.3.1"
    dataset.Modality = "AU"
    dataset.PatientName = "CANARY^Mary"
    dataset.PatientID = "CANARY-1"
    dataset.WaveformSequence = list(groups)
    _change(dataset, changes)
    dataset.update(more or {})
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = BASIC_VOICE
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    written = buffer.getvalue()
    if preamble:
        return written
    group_length = int.from_bytes(written[140:144], "little")
    return written[144 + group_length :]  # neither preamble nor meta information: the bare data set


def _change(dataset: Dataset, changes: dict[str, Any]) -> None:
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)


def snr_db(wanted: np.ndarray, got: np.ndarray) -> float:
    """Best ratio over delays of up to 0.1 s at 16 kHz: lossy codecs shift."""
    length = min(len(wanted), len(got)) - 1600
    best = -np.inf
    for delay in range(0, 1600, 1):
        noise = got[delay : delay + length] - wanted[:length]
        best = max(best, float(10 * np.log10(np.sum(wanted[:length] ** 2) / max(np.sum(noise**2), 1e-20))))
    return best
