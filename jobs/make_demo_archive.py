"""Makes the demo archive again: from texts to recordings in every container that dictalake reads.

    python -m jobs.make_demo_archive

``texts.csv`` in the archive's folder has one row for each utterance: ``recording,format,specialty,channel,voice,text``.
The rows of one recording are spoken one after the other, each on its own channel. The job writes ``recordings/`` and
``references.csv`` (``uri,reference,voice,specialty``), in which the two broken recordings have no reference. The same
texts, voices and libraries give the same bytes. It needs the extra ``synthesis``, and flite, festival and espeak-ng from
the operating system.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import soxr
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from dictalake.cli.synthesize import VOICE_BY_NAME
from dictalake.config.locations import ASSETS
from dictalake.training.voices import SAMPLE_RATE_HZ, SynthesisError, spoken, synthesize

FOLDER = ASSETS / "demo-archive"
BASIC_VOICE, GENERAL_AUDIO = "1.2.840.10008.5.1.4.1.1.9.4.1", "1.2.840.10008.5.1.4.1.1.9.4.2"

_EDGE_S = 0.25  # silence before the first word and after the last
_PAUSE_S = 0.7  # between utterances of one channel
_TURN_S = 1.3  # between utterances of different channels
_SPEEDS = (0.95, 1.15)
_PEAKS_DBFS = (-14.0, -3.0)


@dataclass(frozen=True)
class Format:
    """How a recording is stored. ``container`` and ``codec`` are FFmpeg's words; a DICOM object names its
    ``interpretation`` (Waveform Sample Interpretation) besides, and its waveform is the raw ``container``."""

    container: str
    codec: str
    rate_hz: int = SAMPLE_RATE_HZ
    bit_rate: int | None = None
    interpretation: str | None = None
    sop_class: str = BASIC_VOICE


FORMATS = {
    "wav-pcm16-8k": Format("wav", "pcm_s16le", 8_000),
    "wav-pcm16-16k": Format("wav", "pcm_s16le"),
    "wav-pcm16-44k": Format("wav", "pcm_s16le", 44_100),
    "wav-float-16k": Format("wav", "pcm_f32le"),
    "wav-mulaw-8k": Format("wav", "pcm_mulaw", 8_000),
    "wav-alaw-8k": Format("wav", "pcm_alaw", 8_000),
    "flac-16k": Format("flac", "flac"),
    "mp3-16k": Format("mp3", "libmp3lame", bit_rate=32_000),
    "ogg-vorbis-16k": Format("ogg", "vorbis"),
    "ogg-opus-16k": Format("ogg", "libopus", bit_rate=24_000),
    "dicom-mulaw-8k": Format("mulaw", "pcm_mulaw", 8_000, interpretation="MB"),
    "dicom-alaw-8k": Format("alaw", "pcm_alaw", 8_000, interpretation="AB"),
    "dicom-ub8": Format("u8", "pcm_u8", 8_000, interpretation="UB"),
    "dicom-general-ss16": Format("s16le", "pcm_s16le", interpretation="SS", sop_class=GENERAL_AUDIO),
}

NOT_AUDIO = "This is a note that somebody saved under the name of a recording. There is no sound in it.\n"
# A FLAC file as a full disk leaves it: the header says eight seconds, then zeros.
DEAD_FLAC = b"fLaC\x80\x00\x00\x22" + bytes.fromhex("1000100000000000000003e800f00001f400") + bytes(16 + 4096)
BROKEN = {"medicine/voice-memo.wav": NOT_AUDIO.encode(), "surgery/op-note-0504.flac": DEAD_FLAC}


@dataclass(frozen=True)
class Utterance:
    """One row of ``texts.csv``."""

    recording: str
    format: str
    specialty: str
    channel: int
    voice: str
    text: str


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m jobs.make_demo_archive", description="Make the demo archive again.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="the folder that has texts.csv and gets recordings/")
    folder = parser.parse_args(argv).folder
    utterances = read_texts(folder / "texts.csv")

    shutil.rmtree(folder / "recordings", ignore_errors=True)
    references = []
    for name, rows in groupby(utterances, key=lambda utterance: utterance.recording):
        parts = list(rows)
        try:
            samples = speak(parts)
        except SynthesisError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        _write(folder / "recordings" / name, store(samples, FORMATS[parts[0].format], name))
        voices = "+".join(dict.fromkeys(part.voice for part in parts))
        references.append((f"recordings/{name}", " ".join(part.text for part in parts), voices, parts[0].specialty))
    for name, data in BROKEN.items():
        _write(folder / "recordings" / name, data)
        references.append((f"recordings/{name}", "", "", ""))

    with (folder / "references.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("uri", "reference", "voice", "specialty"))
        writer.writerows(sorted(references))
    size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{len(references)} recordings, {size_bytes / 1e6:.1f} MB in {folder}")
    return 0


def read_texts(path: Path) -> list[Utterance]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        Utterance(row["recording"], row["format"], row["specialty"], int(row["channel"]), row["voice"], row["text"])
        for row in rows
    ]


def speak(parts: Sequence[Utterance]) -> np.ndarray:
    """The utterances in turn, float32 ``(channels, samples)`` at 16 kHz; while one channel speaks, the others are silent.

    Pace, level and pauses come by chance from the recording's name alone. Raises SynthesisError.
    """
    rng = random.Random(parts[0].recording)
    speech, starts, position = [], [], _EDGE_S
    for index, part in enumerate(parts):
        if index:
            position += _PAUSE_S if part.channel == parts[index - 1].channel else _TURN_S
        waveform = synthesize(VOICE_BY_NAME[part.voice], spoken(part.text, rng), rng.uniform(*_SPEEDS))
        speech.append(waveform / np.abs(waveform).max() * 10 ** (rng.uniform(*_PEAKS_DBFS) / 20))
        starts.append(round(position * SAMPLE_RATE_HZ))
        position += len(waveform) / SAMPLE_RATE_HZ
    samples = np.zeros((1 + max(part.channel for part in parts), round((position + _EDGE_S) * SAMPLE_RATE_HZ)), np.float32)
    for part, waveform, start in zip(parts, speech, starts, strict=True):
        samples[part.channel, start : start + len(waveform)] = waveform
    return samples


def store(samples: np.ndarray, how: Format, name: str) -> bytes:
    """The bytes of a recording: ``samples`` float32 ``(channels, samples)`` at 16 kHz, stored as ``how``."""
    if how.rate_hz != SAMPLE_RATE_HZ:
        samples = np.clip(soxr.resample(samples.T, SAMPLE_RATE_HZ, how.rate_hz).T, -1.0, 1.0)
    if how.codec == "vorbis":
        return _encode_vorbis(samples, how)
    data = _encode(samples, how)
    return data if how.interpretation is None else _wrap_in_dicom(data, samples.shape, how, name)


def _encode(samples: np.ndarray, how: Format) -> bytes:
    buffer = io.BytesIO()
    layout = "mono" if len(samples) == 1 else "stereo"
    # bitexact: no library versions, times or random serial numbers in the file
    with av.open(buffer, "w", format=how.container, options={"fflags": "+bitexact"}) as file:
        stream: Any = file.add_stream(how.codec, rate=how.rate_hz, layout=layout)
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        if how.bit_rate:
            stream.bit_rate = how.bit_rate
        interleaved = np.ascontiguousarray(samples.T, np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
        frame.sample_rate, frame.pts = how.rate_hz, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return buffer.getvalue()


def _encode_vorbis(samples: np.ndarray, how: Format) -> bytes:
    """PyAV has no Vorbis encoder; libsndfile has one but draws a random serial number, so FFmpeg packs its output again."""
    written, packed = io.BytesIO(), io.BytesIO()
    soundfile.write(written, samples.T, how.rate_hz, format="OGG", subtype="VORBIS")
    written.seek(0)
    with av.open(written, "r") as source, av.open(packed, "w", format="ogg", options={"fflags": "+bitexact"}) as file:
        stream = file.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                file.mux(packet)
    return packed.getvalue()


def _wrap_in_dicom(data: bytes, shape: tuple[int, ...], how: Format, name: str) -> bytes:
    """A DICOM audio object with made-up UIDs; what the standard demands of patient and study is present and empty."""
    dataset = Dataset()
    dataset.SOPClassUID = how.sop_class
    for level in ("Study", "Series", "SOP"):
        setattr(dataset, f"{level}InstanceUID", generate_uid(entropy_srcs=["dictalake demo archive", level, name]))
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
        setattr(dataset, keyword, "")
    for keyword in ("ReferringPhysicianName", "AccessionNumber"):
        setattr(dataset, keyword, "")
    dataset.Modality, dataset.Manufacturer, dataset.ManufacturerModelName = "AU", "dictalake", "demo archive"
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    chance = random.Random(name)
    day = f"2025{chance.randint(1, 12):02}{chance.randint(1, 28):02}"
    dataset.ContentDate, dataset.ContentTime = day, f"{chance.randint(8, 17):02}3000"
    dataset.AcquisitionDateTime = dataset.ContentDate + dataset.ContentTime
    dataset.AcquisitionContextSequence = []
    dataset.WaveformSequence = [_make_group(data, shape, how)]
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = generate_uid(entropy_srcs=["dictalake demo archive"])
    dataset.file_meta.ImplementationVersionName = "DICTALAKE"
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _make_group(data: bytes, shape: tuple[int, ...], how: Format) -> Dataset:
    """The multiplex group (PS3.3 section C.10.9)."""
    bits = 16 if how.interpretation == "SS" else 8
    group = Dataset()
    group.WaveformOriginality = "ORIGINAL"
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = shape
    group.SamplingFrequency = str(how.rate_hz)
    group.ChannelDefinitionSequence = [_make_channel(bits) for _ in range(shape[0])]
    group.WaveformBitsAllocated = bits
    group.WaveformSampleInterpretation = how.interpretation
    group.add_new(0x54001010, "OW" if bits == 16 else "OB", data + b"\0" * (len(data) % 2))
    return group


def _make_channel(bits: int) -> Dataset:
    source = Dataset()  # CID 3000
    source.CodeValue, source.CodingSchemeDesignator, source.CodeMeaning = "109111", "DCM", "Operator's narrative"
    channel = Dataset()
    channel.ChannelSourceSequence = [source]
    channel.WaveformBitsStored = bits
    return channel


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


if __name__ == "__main__":
    sys.exit(main())
