"""Finds decoder settings on labelled recordings whose emissions are cached, so that a trial only runs the decoder."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from dictalake.config.locations import resolve
from dictalake.config.sections import Config, Decoding
from dictalake.decoding.base import Decoder, open_decoder
from dictalake.decoding.hotwords import find_hotwords, read_hotwords
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.errors import ConfigError
from dictalake.evaluation.calibration import label_words
from dictalake.evaluation.emission_cache import CachedEmissions, read_cache
from dictalake.evaluation.normalise import NORMALISERS
from dictalake.evaluation.systems import REFERENCE
from dictalake.evaluation.word_errors import ErrorCount, count_errors
from dictalake.records import FrameGrid, Recording
from dictalake.transcript.words import find_word_pieces, join_words, measure_evidence, merge_channels, words_of

Settings = Mapping[str, Any]  # keys of the section `decoding`


def check_apart(dev: Sequence[Recording], held_out: Sequence[Recording]) -> str | None:
    """A warning where held-out recordings have a reference that was tuned on, word for word. Raises ConfigError where the two
    sets share recordings: figures of those would be of what the settings were chosen by.
    """
    there = {recording.recording_id for recording in dev} | {recording.uri for recording in dev}
    shared = sum(recording.recording_id in there or recording.uri in there for recording in held_out)
    if shared:
        raise ConfigError(
            f"--held-out: {shared} of its {len(held_out)} recordings are in the manifest to tune on too; take them out of one"
        )
    texts = {_normalise_reference(recording) for recording in dev}
    alike = sum(_normalise_reference(recording) in texts - {""} for recording in held_out)
    if not alike:
        return None
    return (
        f"warning: {alike} of the {len(held_out)} held-out recordings have a reference text that was tuned on too, word for "
        "word; their figures are too good"
    )


def _normalise_reference(recording: Recording) -> str:
    return NORMALISERS["words"](recording.metadata.get(REFERENCE, ""))


@dataclass(frozen=True)
class Decoded:
    """One recording: reference and hypothesis as spoken, and each word's evidence (two logits) and whether it is right."""

    recording_id: str
    reference: str
    hypothesis: str
    evidence: np.ndarray
    is_right: np.ndarray


@dataclass(frozen=True)
class Trial:
    """The result of ``settings`` on the recordings. For hotwords: how often they were spoken, found, and found wrongly."""

    settings: Settings
    decoded: tuple[Decoded, ...]
    normaliser: str
    hotwords_said: int = 0
    hotwords_found: int = 0
    hotwords_false: int = 0

    @cached_property
    def errors(self) -> ErrorCount:
        normalise = NORMALISERS[self.normaliser]
        return count_errors([(normalise(one.reference), normalise(one.hypothesis)) for one in self.decoded])

    @property
    def evidence(self) -> np.ndarray:
        """The evidence ``(words, 2)`` of all recordings."""
        return np.concatenate([one.evidence for one in self.decoded]) if self.decoded else np.empty((0, 2))

    @property
    def is_right(self) -> np.ndarray:
        return np.concatenate([one.is_right for one in self.decoded]) if self.decoded else np.empty(0, dtype=bool)


class Bench:
    """Decodes the recordings of a cache with any settings, on all cores."""

    def __init__(self, pool: ProcessPoolExecutor, config: Config, vocabulary: Vocabulary, shards: int) -> None:
        self._pool, self._config, self._vocabulary, self._shards = pool, config, vocabulary, shards

    def try_settings(self, settings: Settings, normaliser: str) -> Trial:
        """Raises ConfigError for invalid settings."""
        decoding = Decoding.model_validate({**self._config.decoding.model_dump(), **settings, "nbest": 1})
        parts = self._pool.map(_decode_shard, [(decoding, normaliser, shard, self._shards) for shard in range(self._shards)])
        decoded = tuple(one for part in parts for one in part)
        if decoding.hotwords is None:
            return Trial(dict(settings), decoded, normaliser)
        said, found, false = self._count_hotwords(Path(resolve(decoding.hotwords)), decoded)
        return Trial(dict(settings), decoded, normaliser, said, found, false)

    def _count_hotwords(self, path: Path, decoded: Sequence[Decoded]) -> tuple[int, int, int]:
        hotwords = read_hotwords(path, self._vocabulary).hotwords
        said = found = false = 0
        for one in decoded:
            wanted, cached = (Counter(find_hotwords(hotwords, text)) for text in (one.reference, one.hypothesis))
            said, found, false = said + wanted.total(), found + (wanted & cached).total(), false + (cached - wanted).total()
        return said, found, false


@contextmanager
def open_bench(cache: Path, config: Config, vocabulary: Vocabulary, grid: FrameGrid, processes: int) -> Iterator[Bench]:
    """A bench over the recordings of ``cache``, without those that failed or have no reference."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _start, (cache, vocabulary, grid)) as pool:
        yield Bench(pool, config, vocabulary, processes)


def search(
    bench: Bench, axes: Sequence[Mapping[str, Sequence[Any]]], normaliser: str, on_trial: Callable[[Trial], None]
) -> Trial:
    """The trial with the fewest errors. ``axes`` are grids (key → values). They are searched one after another, each with the
    best settings of those before it. Of equal trials the first one wins, so give the cheaper value first.
    """
    best: Trial | None = None
    for grid in axes:
        fixed = dict(best.settings) if best else {}
        for values in _product(grid):
            settings = {**fixed, **values}
            if best is not None and settings == best.settings:
                continue
            trial = bench.try_settings(settings, normaliser)
            on_trial(trial)
            if best is None or trial.errors.rate < best.errors.rate:
                best = trial
    assert best is not None
    return best


def _product(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


@dataclass
class _Worker:
    """What a process of the pool keeps between trials."""

    recordings: list[CachedEmissions]
    vocabulary: Vocabulary
    grid: FrameGrid
    settings: Decoding | None = None
    decoder: Decoder | None = None


_worker: _Worker | None = None


def _start(cache: Path, vocabulary: Vocabulary, grid: FrameGrid) -> None:
    global _worker
    usable = [cached for cached in read_cache(cache) if cached.reason is None and cached.reference is not None]
    _worker = _Worker(usable, vocabulary, grid)


def _decode_shard(task: tuple[Decoding, str, int, int]) -> list[Decoded]:
    decoding, normaliser, shard, shards = task
    assert _worker is not None
    if _worker.settings != decoding:
        _worker.settings, _worker.decoder = decoding, open_decoder(decoding, _worker.vocabulary)
    assert _worker.decoder is not None
    return [_decode(cached, _worker.decoder, _worker.grid, normaliser) for cached in _worker.recordings[shard::shards]]


def _decode(cached: CachedEmissions, decoder: Decoder, grid: FrameGrid, normaliser: str) -> Decoded:
    assert cached.reference is not None
    evidence: dict[int, tuple[float, float]] = {}
    channels = []
    for index, emissions in enumerate(cached.channels):
        best = decoder.decode(emissions, 1)[0]
        words = words_of(best, grid, index)
        evidence |= {id(word): measure_evidence(group) for word, group in zip(words, find_word_pieces(best), strict=True)}
        channels.append(words)
    merged = merge_channels(channels)
    labels = label_words(cached.reference, [word.word for word in merged], NORMALISERS[normaliser])
    labelled = [(evidence[id(word)], label) for word, label in zip(merged, labels, strict=True) if label is not None]
    return Decoded(
        cached.recording_id,
        cached.reference,
        join_words(merged),
        np.array([logits for logits, _ in labelled], dtype=np.float64).reshape(-1, 2),
        np.array([label for _, label in labelled], dtype=bool),
    )
