"""The fast readers give what the others give, and leave the bytes to them at the first fault."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from dictalake.audio.formats import audio_file
from dictalake.audio.formats.opus_reader import NotPlainOpus, is_plain_opus, read_opus
from dictalake.audio.formats.read_audio import read_audio
from dictalake.audio.formats.reader import DecodeSession
from dictalake.audio.level import measure_level
from dictalake.audio.resample import resample_blocks
from dictalake.config.sections import Limits
from dictalake.records import DecodedAudio
from tests.recordings import make_sound

SECONDS = 3.0
STEP = 1 / 32_768


def write(container: str, subtype: str, rate_hz: int, channels: int = 1) -> bytes:
    sound = np.resize(make_sound(SECONDS, 1), int(SECONDS * rate_hz))
    file = io.BytesIO()
    soundfile.write(file, np.stack([sound] * channels, axis=1), rate_hz, format=container, subtype=subtype)
    return file.getvalue()


@pytest.fixture(scope="module")
def opus() -> bytes:
    return write("OGG", "OPUS", 48_000)


def read(data: bytes) -> DecodedAudio:
    """However much of it is lost."""
    return read_audio(data, "id", Limits(lost_ratio=1.0))  # type: ignore[call-arg]


def read_slowly(data: bytes, monkeypatch: pytest.MonkeyPatch) -> DecodedAudio:
    with monkeypatch.context() as patched:
        patched.setattr(audio_file, "is_plain_opus", lambda data: False)
        return read(data)


def test_opus_has_the_samples_and_the_account_of_the_slower_reader(opus: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (opus, write("OGG", "OPUS", 48_000, channels=2), opus + opus):
        fast, slow = read(data), read_slowly(data, monkeypatch)
        assert (fast.account, fast.format) == (slow.account, slow.format)
        np.testing.assert_allclose(fast.samples, slow.samples, atol=0.05 * STEP)


def test_whole_opus_at_48_khz_is_read_by_libopus(opus: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_file, "read_with_soundfile", None)
    assert read_audio(opus, "id").samples.shape == (1, 144_000)


@pytest.mark.parametrize("damage", ["cut", "hole", "packet"])
def test_damaged_opus_is_what_it_was_before(opus: bytes, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    middle = len(opus) // 2
    data = {
        "cut": opus[:middle],
        "hole": opus[:middle] + bytes(400) + opus[middle + 400 :],
        "packet": opus[: middle - 1000] + opus[middle:],
    }[damage]
    fast, slow = read(data), read_slowly(data, monkeypatch)
    assert (fast.account, fast.format) == (slow.account, slow.format)
    np.testing.assert_allclose(fast.samples, slow.samples, atol=0.05 * STEP)


def test_opus_of_other_kinds_is_left_to_libsndfile(opus: bytes) -> None:
    head = opus.index(b"OpusHead")
    assert is_plain_opus(opus)
    assert not is_plain_opus(write("OGG", "OPUS", 16_000))
    assert not is_plain_opus(write("OGG", "VORBIS", 16_000))
    for at, value in ((9, 3), (16, 1), (18, 1)):  # channels, gain, mapping family
        changed = bytearray(opus)
        changed[head + at] = value
        assert not is_plain_opus(bytes(changed))
    with pytest.raises(NotPlainOpus):
        read_opus(opus[:100], "ogg", DecodeSession("id", Limits()), 0.0, (0, 0))  # type: ignore[call-arg]


def test_16_bit_pcm_at_16_khz_comes_as_it_is_stored() -> None:
    seen: list[np.dtype] = []

    def consume(rate_hz: int, blocks):  # type: ignore[no-untyped-def]
        kept = list(blocks)
        seen.extend(block.dtype for block in kept)
        return resample_blocks(rate_hz, iter(kept))

    for channels in (1, 2):
        data = write("WAV", "PCM_16", 16_000, channels)
        stored = soundfile.read(io.BytesIO(data), dtype="int16", always_2d=True)[0].T
        np.testing.assert_array_equal(read_audio(data, "id", consume=consume).samples, stored)
    assert set(seen) == {np.dtype(np.int16)}
    joined = read_audio(data, "id").samples
    np.testing.assert_array_equal(joined, stored.astype(np.float32) / 32_768)


def test_the_level_is_that_of_the_whole_numbers() -> None:
    random = np.random.default_rng(0)
    waveforms = random.integers(-32_768, 32_768, (2, 100_001)).astype(np.int16)
    waveforms[1] //= 2
    whole = waveforms.astype(np.int64)
    level = measure_level(waveforms)
    assert level.clipped_ratio == (np.abs(whole) >= 32_767).mean()
    assert level.level_dbfs == 10 * float(np.log10(float((whole**2).sum()) / whole.size / 32_768**2))
    assert level.dc_offset == max((whole.sum(axis=1) / 100_001 / 32_768).tolist(), key=abs)
