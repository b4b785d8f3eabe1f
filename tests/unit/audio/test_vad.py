"""Where speech is, and how much of it no word covers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dictalake.audio.formats.read_audio import read_audio
from dictalake.audio.level import measure_level
from dictalake.audio.resample import resample_blocks
from dictalake.audio.vad import find_speech, join_intervals, subtract_intervals, total_s
from dictalake.config.locations import ASSETS
from dictalake.records import Word
from dictalake.workflow.stages.assemble import measure_uncovered

interval_lists = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=12).map(
    lambda pairs: np.array([(start, start + length) for start, length in pairs], dtype=np.float64).reshape(-1, 2)
)


def read_dictation() -> np.ndarray:
    """The first WAV of the demo archive, int16 at 16 kHz."""
    path = sorted(Path(ASSETS / "demo-archive").rglob("*.wav"))[0]
    return np.asarray(read_audio(path.read_bytes(), "r1", consume=resample_blocks).samples[0])


def covered_points(intervals: np.ndarray) -> set[int]:
    return {point for start, end in intervals for point in range(int(start), int(end))}


@settings(deadline=None)
@given(interval_lists, interval_lists)
def test_intervals_join_and_subtract_as_sets_do(first: np.ndarray, second: np.ndarray) -> None:
    joined, other = join_intervals([first]), join_intervals([second])
    assert covered_points(joined) == covered_points(first)
    assert (joined[1:, 0] > joined[:-1, 1]).all()
    assert covered_points(subtract_intervals(joined, other)) == covered_points(first) - covered_points(second)
    assert total_s(join_intervals([first, second])) == len(covered_points(first) | covered_points(second))


def test_dictation_is_speech_and_silence_is_not() -> None:
    dictation = read_dictation()
    silence = np.zeros(32_000, dtype=np.int16)
    speech = find_speech(np.concatenate([silence, dictation, silence]), "webrtc")
    length_s = len(dictation) / 16_000
    assert total_s(speech) > 0.6 * length_s
    assert speech[0, 0] > 1.7
    assert speech[-1, 1] < 2.0 + length_s + 0.5
    assert len(find_speech(silence, "webrtc")) == 0


@pytest.mark.parametrize("samples", [0, 1, 479, 480])
def test_hardly_any_samples_hold_no_speech(samples: int) -> None:
    assert find_speech(np.full(samples, 9_000, dtype=np.int16), "webrtc").shape == (0, 2)


def test_uncovered_is_the_speech_without_a_word_near_it() -> None:
    words = [Word("a", 1.0, 1.4, 0.9), Word("b", 1.5, 2.0, 0.9)]
    assert measure_uncovered([[0.5, 2.5]], [words]) == 0.0
    assert measure_uncovered([[0.5, 2.5, 10.0, 14.0]], [words]) == pytest.approx(4.0)
    assert measure_uncovered([[0.5, 4.5]], [words]) == pytest.approx(2.0)
    assert measure_uncovered([[0.5, 4.5], [0.5, 4.5]], [words, []]) == pytest.approx(4.0), "the other channel lost it all"
    assert measure_uncovered([[], []], [words, []]) == 0.0


def test_level_clipping_and_offset_are_measured_over_all_channels() -> None:
    quiet, loud = np.full(1000, 328, dtype=np.int16), np.full(1000, -32_768, dtype=np.int16)
    level = measure_level(np.stack([quiet, loud]))
    assert level.clipped_ratio == 0.5
    assert level.dc_offset == -1.0
    assert level.level_dbfs == pytest.approx(-3.0, abs=0.1)
    assert measure_level(np.zeros((1, 10), dtype=np.int16)) == (None, 0.0, 0.0)


def test_silero_hears_what_webrtc_hears() -> None:
    """Where its package is installed: pip install 'dictalake[silero]'."""
    pytest.importorskip("silero_vad")
    dictation = np.concatenate([np.zeros(32_000, np.int16), read_dictation(), np.zeros(32_000, np.int16)])
    webrtc, silero = find_speech(dictation, "webrtc"), find_speech(dictation, "silero")
    missed = total_s(subtract_intervals(webrtc, silero)) + total_s(subtract_intervals(silero, webrtc))
    assert missed < 0.25 * total_s(webrtc)
    assert abs(silero[0, 0] - webrtc[0, 0]) < 0.3
