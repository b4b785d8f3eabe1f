"""The fast readers give what the others give, and leave the bytes to them at the first fault."""

from __future__ import annotations

import io

import numpy as np
import soundfile

from dictalake.audio.formats.read_audio import read_audio
from dictalake.audio.level import measure_level
from dictalake.audio.resample import resample_blocks
from tests.recordings import make_sound

SECONDS = 3.0
STEP = 1 / 32_768


def write(container: str, subtype: str, rate_hz: int, channels: int = 1) -> bytes:
    sound = np.resize(make_sound(SECONDS, 1), int(SECONDS * rate_hz))
    file = io.BytesIO()
    soundfile.write(file, np.stack([sound] * channels, axis=1), rate_hz, format=container, subtype=subtype)
    return file.getvalue()


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
