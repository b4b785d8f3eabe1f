"""Makes long dictations for evaluation: it joins short utterances of one voice, with the pauses of a speaker who thinks.

The seed and the number of a dictation decide what is drawn:

- its length, log-uniform over the given range, and a voice with that much speech, in proportion to how much it has; no
  utterance comes twice in one dictation;
- a pause before each utterance and at the end: log-normal, median 0.7 s, sigma 0.5, kept within 0.2 and 2 s; one in ten is a
  thinking pause instead, uniform from 2 to 6 s;
- its level, the peak uniform from -14 to -4 dBFS, and a difference for each utterance: normal, sigma 1.5 dB, at most 3 dB;
- a noise floor under all of it, white, its level uniform from -70 to -55 dBFS: no microphone gives digital silence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dictalake.errors import ConfigError
from dictalake.training.augment import SAMPLE_RATE_HZ
from dictalake.training.utterances import TrainingUtterance

PAUSE_MEDIAN_S, PAUSE_SIGMA, PAUSE_LEAST_S, PAUSE_MOST_S = 0.7, 0.5, 0.2, 2.0
THINKING_SHARE, THINKING_LEAST_S, THINKING_MOST_S = 0.1, 2.0, 6.0
PEAK_LEAST_DBFS, PEAK_MOST_DBFS = -14.0, -4.0
LEVEL_SIGMA_DB, LEVEL_MOST_DB = 1.5, 3.0
NOISE_LEAST_DBFS, NOISE_MOST_DBFS = -70.0, -55.0


@dataclass(frozen=True)
class Excerpt:
    """One utterance in a dictation: samples ``start`` to before ``end``, and where its words begin in the reference."""

    utterance: TrainingUtterance
    start: int
    end: int
    first_word: int
    level_db: float


@dataclass(frozen=True)
class LongDictation:
    """The random choices for one dictation of ``samples`` samples at 16 kHz."""

    voice: str
    parts: tuple[Excerpt, ...]
    samples: int
    peak_dbfs: float
    noise_dbfs: float
    noise_seed: int

    @property
    def reference(self) -> str:
        return " ".join(part.utterance.reference for part in self.parts)

    @property
    def seconds(self) -> float:
        return self.samples / SAMPLE_RATE_HZ

    def parts_json(self) -> str:
        """``[[start_s, end_s, first reference word index], …]``; seconds are exact to the sample."""
        return json.dumps([[p.start / SAMPLE_RATE_HZ, p.end / SAMPLE_RATE_HZ, p.first_word] for p in self.parts])


def plan_dictation(
    utterances: Sequence[TrainingUtterance], lengths: dict[str, int], seed: int, number: int, least_s: float, most_s: float
) -> LongDictation:
    """Dictation ``number`` of ``seed``: ``least_s`` to ``most_s`` seconds long.

    ``lengths`` has the samples of each utterance at 16 kHz, by path. Utterances are added until the drawn length is reached;
    one that would exceed ``most_s`` is skipped. Raises ConfigError if no voice has enough speech.
    """
    rng = np.random.default_rng([seed, number])
    wanted = round(math.exp(rng.uniform(math.log(least_s), math.log(most_s))) * SAMPLE_RATE_HZ)
    most = int(most_s * SAMPLE_RATE_HZ)
    spoken = {voice: sum(lengths[u.path] for u in of_voice) for voice, of_voice in _by_voice(utterances).items()}
    able = sorted(voice for voice, total in spoken.items() if total >= wanted)
    if not able:
        raise ConfigError(
            f"--manifest: no voice has {wanted / SAMPLE_RATE_HZ:.0f} s of speech, the most is "
            f"{max(spoken.values(), default=0) / SAMPLE_RATE_HZ:.0f} s; give more utterances or a lower --most-s"
        )
    weights = np.array([spoken[voice] for voice in able], float)
    voice = able[int(rng.choice(len(able), p=weights / weights.sum()))]
    mine = _by_voice(utterances)[voice]
    parts: list[Excerpt] = []
    last_pause, at, words = draw_pause(rng), 0, 0
    for index in rng.permutation(len(mine)):
        utterance = mine[int(index)]
        start = at + draw_pause(rng)
        end = start + lengths[utterance.path]
        if end + last_pause > most:
            continue
        level_db = float(np.clip(rng.normal(0.0, LEVEL_SIGMA_DB), -LEVEL_MOST_DB, LEVEL_MOST_DB))
        parts.append(Excerpt(utterance, start, end, words, level_db))
        at, words = end, words + len(utterance.reference.split())
        if at + last_pause >= wanted:
            break
    if at + last_pause < least_s * SAMPLE_RATE_HZ:
        raise ConfigError(
            f"--least-s {least_s:g} --most-s {most_s:g}: the utterances are too long for so narrow a range; widen it"
        )
    peak_dbfs = float(rng.uniform(PEAK_LEAST_DBFS, PEAK_MOST_DBFS))
    noise_dbfs = float(rng.uniform(NOISE_LEAST_DBFS, NOISE_MOST_DBFS))
    return LongDictation(voice, tuple(parts), at + last_pause, peak_dbfs, noise_dbfs, int(rng.integers(2**32)))


def _by_voice(utterances: Sequence[TrainingUtterance]) -> dict[str, list[TrainingUtterance]]:
    voices: dict[str, list[TrainingUtterance]] = {}
    for utterance in utterances:
        voices.setdefault(utterance.voice, []).append(utterance)
    return voices


def draw_pause(rng: np.random.Generator) -> int:
    """A pause in samples at 16 kHz."""
    if rng.random() < THINKING_SHARE:
        pause_s = rng.uniform(THINKING_LEAST_S, THINKING_MOST_S)
    else:
        pause_s = np.clip(PAUSE_MEDIAN_S * math.exp(rng.normal(0.0, PAUSE_SIGMA)), PAUSE_LEAST_S, PAUSE_MOST_S)
    return round(float(pause_s) * SAMPLE_RATE_HZ)


def render(dictation: LongDictation, load: Callable[[str], np.ndarray]) -> np.ndarray:
    """The waveform, float32 ``(samples,)`` in [-1, 1].

    ``load``: path → float32 ``(samples,)`` at 16 kHz, with exactly the planned length. Each utterance is scaled to the
    dictation's peak plus its drawn difference: utterances of one voice may have been recorded at any level.
    """
    noise = np.random.default_rng(dictation.noise_seed).standard_normal(dictation.samples, dtype=np.float32)
    waveform = noise * np.float32(10 ** (dictation.noise_dbfs / 20))
    for part in dictation.parts:
        samples = load(part.utterance.path)
        peak = float(np.abs(samples).max())
        gain = 10 ** ((dictation.peak_dbfs + part.level_db) / 20) / peak if peak else 0.0
        waveform[part.start : part.end] += samples * np.float32(gain)
    return np.clip(waveform, -1.0, 1.0)
