"""The recordings of the demo archive: every container that is read, and two that must fail."""

from __future__ import annotations

from collections import Counter

import pytest

from dictalake.archive.fetch import fetch
from dictalake.archive.manifest import find_recordings
from dictalake.audio.formats.read_audio import read_audio
from dictalake.config.sections import Archive
from dictalake.errors import TranscriptionError
from dictalake.records import AudioFormat, Recording

ARCHIVE = Archive.model_validate({"manifest": "embedded:demo-archive/references.csv"})


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return list(find_recordings(ARCHIVE))


def test_every_container_is_there_and_the_two_broken_files_fail(recordings: list[Recording]) -> None:
    stored: Counter[tuple[str, str, int, int]] = Counter()
    failed = {}
    longest_s = 0.0
    for recording in recordings:
        try:
            audio = read_audio(fetch(recording, ARCHIVE), recording.recording_id)
        except TranscriptionError as error:
            failed[recording.uri.rsplit("/", 1)[-1]] = error.reason
            continue
        longest_s = max(longest_s, audio.samples.shape[1] / audio.format.sample_rate_hz)
        stored[_describe(audio.format)] += 1
        assert "reference" in recording.metadata
    assert failed == {"voice-memo.wav": "not_audio", "op-note-0504.flac": "corrupt_audio"}
    assert longest_s > 60
    assert stored == {
        ("wav", "pcm_s16le", 8_000, 1): 1,
        ("wav", "pcm_s16le", 8_000, 2): 1,
        ("wav", "pcm_s16le", 16_000, 1): 3,
        ("wav", "pcm_s16le", 44_100, 1): 1,
        ("wav", "pcm_f32le", 16_000, 1): 1,
        ("wav", "pcm_mulaw", 8_000, 1): 1,
        ("wav", "pcm_alaw", 8_000, 1): 1,
        ("flac", "flac", 16_000, 1): 4,
        ("mp3", "mp3", 16_000, 1): 5,
        ("ogg", "vorbis", 16_000, 1): 2,
        ("ogg", "opus", 16_000, 1): 2,
        ("dicom", "mu_law", 8_000, 1): 1,
        ("dicom", "mu_law", 8_000, 2): 1,
        ("dicom", "a_law", 8_000, 1): 1,
        ("dicom", "pcm_u8", 8_000, 1): 1,
        ("dicom", "pcm_s16", 16_000, 1): 1,
    }


def _describe(stored: AudioFormat) -> tuple[str, str, int, int]:
    return stored.container, stored.codec, stored.sample_rate_hz, stored.channels
