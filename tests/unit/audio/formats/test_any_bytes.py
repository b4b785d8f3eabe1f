"""Whatever the bytes are, `read_audio` returns well-formed audio or raises a typed error with a sentence in it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from dictalake.audio.formats.read_audio import read_audio
from dictalake.errors import LoadError
from tests.unit.audio.formats.archive_samples import encode, make_dicom, make_group, make_tone

pytestmark = pytest.mark.filterwarnings("ignore")

TONE = make_tone(0.1, 8_000)
CODES = (np.arange(800) % 251).astype(np.uint8).tobytes()
SEEDS = {
    "wav": encode(TONE, 8_000, "WAV"),
    "float": encode(TONE, 8_000, "WAV", "FLOAT"),
    "mulaw": encode(TONE, 8_000, "WAV", "ULAW"),
    "ms_adpcm": encode(TONE, 8_000, "WAV", "MS_ADPCM"),
    "flac": encode(TONE, 8_000, "FLAC"),
    "mp3": encode(TONE, 8_000, "MP3"),
    "vorbis": encode(TONE, 8_000, "OGG", "VORBIS"),
    "opus": encode(TONE, 8_000, "OGG", "OPUS"),
    "aiff": encode(TONE, 8_000, "AIFF"),
    "au": encode(TONE, 8_000, "AU"),
    "caf": encode(TONE, 8_000, "CAF", "ALAC_16"),
    "dicom": make_dicom(make_group(CODES, "MB", 800)),
    "dicom_two": make_dicom(make_group(CODES, "UB", 400, 2), make_group(CODES, "UB", 400, 2)),
    "dicom_bare": make_dicom(make_group(CODES, "AB", 800), preamble=False, syntax=ImplicitVRLittleEndian),
    "dicom_big": make_dicom(make_group(CODES, "SS", 400), syntax=ExplicitVRBigEndian),
    "dicom_deflated": make_dicom(make_group(CODES, "US", 400), syntax=DeflatedExplicitVRLittleEndian),
}
HEADS = [
    b"",
    b"RIFF\x10\x00\x00\x00WAVE",
    b"fLaC",
    b"OggS\x00\x02",
    b"ID3\x04",
    b"\xff\xfb\x90\x64",
    b"\x00\x00\x00\x18ftypM4A ",
]
HEADS += [b"FORM\x00\x00\x00\x00AIFF", b".snd", b"caff", b"#!AMR\n", b"\x02dss", b"\x1a\x45\xdf\xa3", bytes(128) + b"DICM"]
HEADS += [bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), b"\x08\x00\x05\x00CS", b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb"]


def read_or_fail_typed(data: bytes) -> None:
    failure: LoadError | None = None
    try:
        audio = read_audio(data, "r1")
    except LoadError as error:
        failure = error
    if failure is not None:
        assert failure.recording_id == "r1"
        assert len(failure.detail) > 20
        return
    assert audio.samples.dtype == np.float32
    assert audio.samples.shape[0] == audio.format.channels
    assert audio.samples.shape[1] > 0
    assert np.abs(audio.samples).max() <= 1.0


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(HEADS), st.binary(max_size=600))
def test_random_bytes_behind_any_magic_number(head: bytes, rest: bytes) -> None:
    read_or_fail_typed(head + rest)


@pytest.mark.parametrize("name", SEEDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_valid_files(name: str, data: st.DataObject) -> None:
    mutated = bytearray(SEEDS[name])
    for _ in range(data.draw(st.integers(1, 6))):
        # headers are where the claims are, so most hits go there
        end = data.draw(st.sampled_from([min(200, len(mutated)), len(mutated)]))
        at = data.draw(st.integers(0, max(end - 1, 0)))
        mutated[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    read_or_fail_typed(
        bytes(mutated[: data.draw(st.integers(0, len(mutated)))]) if data.draw(st.booleans()) else bytes(mutated)
    )
