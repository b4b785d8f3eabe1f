"""Whether words behind a hole keep their times: 1,000 recordings of the demo's kinds, each with one random hole.

    python -m jobs.benchmarks holes --out infra/benchmarks/holes.json

The demo archive's speech is stored in each of its formats. In each file a random stretch of the coded sound is overwritten with
zeros, FF or noise or, where the format has a clock of its own, taken out. Both files are heard by the demo's model with greedy
decoding; the words that both have behind the hole are compared. Every share of damage is let through, so that all are heard.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from dictalake.acoustic.checkpoint import find_checkpoint, locate_lm
from dictalake.acoustic.fusion import fuse_windows
from dictalake.acoustic.model import open_model
from dictalake.acoustic.sparse import sparsify_stretches
from dictalake.acoustic.window_output import PruneConfig
from dictalake.acoustic.windows import plan_windows
from dictalake.archive.fetch import fetch
from dictalake.archive.listing import list_recordings
from dictalake.audio.load import AudioLoader, LoadedAudio
from dictalake.config.locations import ASSETS
from dictalake.config.sections import Config
from dictalake.decoding.base import open_decoder
from dictalake.errors import LoadError
from dictalake.records import Recording, Word
from dictalake.transcript.words import words_of
from dictalake.workflow.identity import read_vocabulary
from jobs.benchmarks.__main__ import write_result
from jobs.benchmarks.seams import emit
from jobs.make_demo_archive import FORMATS, store

MOST_OFF_S = 0.1
_LENGTH_S = 10.0  # of each recording
_BEHIND_S = 1.5  # words from here on, counted from the hole's end: a page of Ogg is lost as a whole
_SURE_WORDS = 3
_CLOCKED = ("flac-16k", "ogg-vorbis-16k", "ogg-opus-16k")  # what was taken out shows in the numbers of what is left
_CODED = (*_CLOCKED, "mp3-16k")


@dataclass
class Found:
    """Of one kind: recordings and words, and by how much times differ."""

    recordings: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    with_loss: int = 0
    words: int = 0
    matched: int = 0
    off_s: list[float] = field(default_factory=list)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks holes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recordings", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args(argv)
    found = measure(options.recordings, options.seed)
    table = Table(
        "kind", "recordings", "refused", "with loss", "words behind", "in both", "most off", "99 %", title="word times"
    )
    rows = {kind: summarise(one) for kind, one in sorted(found.items())}
    for kind, row in rows.items():
        table.add_row(
            kind,
            *(str(row[key]) for key in ("recordings", "refused", "with_loss", "words", "matched")),
            f"{row['most_off_s']:.3f} s",
            f"{row['p99_off_s']:.3f} s",
        )
    Console(width=130).print(table)
    every = [off for one in found.values() for off in one.off_s]
    worst = max(every, default=0.0)
    print(f"{len(every)} words, the furthest {worst:.3f} s off")
    write_result({"benchmark": "holes", "seed": options.seed, "most_off_s": worst, "results": rows}, options.out)
    return 0 if worst <= MOST_OFF_S else 1


def measure(recordings: int, seed: int) -> dict[str, Found]:
    listener, speech = Listener(), list(read_speech())
    found = {kind: Found() for kind in FORMATS}

    @cache
    def whole(number: int, kind: str) -> tuple[bytes, list[Word], float]:
        data = store(speech[number], FORMATS[kind], f"{number}-{kind}")
        audio = listener.load(data)
        return data, listener.hear(audio), audio.duration_s

    for index in range(recordings):
        rng = random.Random(f"{seed}-{index}")
        kind = list(FORMATS)[index % len(FORMATS)]
        data, words, duration_s = whole(rng.randrange(len(speech)), kind)
        damaged, end_s = damage(data, kind, duration_s, rng)
        one = found[kind]
        one.recordings += 1
        try:
            audio = listener.load(damaged)
        except LoadError as error:
            one.errors[error.reason] += 1
            continue
        one.with_loss += bool(audio.quality["lost_s"])
        one.words += sum(word.start_s >= end_s + _BEHIND_S for word in words)
        for before, after in match(words, listener.hear(audio)):
            if before.start_s >= end_s + _BEHIND_S:
                one.matched += 1
                one.off_s.append(max(abs(before.start_s - after.start_s), abs(before.end_s - after.end_s)))
        if (index + 1) % 100 == 0:
            print(f"{index + 1} of {recordings}", file=sys.stderr, flush=True)
    return found


def read_speech() -> Iterator[np.ndarray]:
    """float32 ``(1, samples)``: the first seconds of each readable recording of the demo archive, of its first channel."""
    config = Config.model_validate({"archive": {"uri": str(ASSETS / "demo-archive/recordings")}})
    loader = AudioLoader(config)
    for recording in list_recordings(config.archive):
        try:
            audio = loader.load(fetch(recording, config.archive), recording)
        except LoadError:  # two are broken on purpose
            continue
        yield audio.waveforms[:1, : round(_LENGTH_S * 16_000)].astype(np.float32) / 32768


def damage(data: bytes, kind: str, duration_s: float, rng: random.Random) -> tuple[bytes, float]:
    """``data`` with one hole, and the second at which it ends, as near as the share of bytes tells."""
    length = round(len(data) / duration_s * rng.uniform(0.1, 1.0))
    at = round(len(data) * rng.uniform(0.15, 0.6))
    fillings = [bytes(length)] if kind not in _CODED else [bytes(length), b"\xff" * length, rng.randbytes(length)]
    if kind in _CLOCKED:
        fillings.append(b"")
    filling = rng.choice(fillings)
    return data[:at] + filling + data[at + length :], (at + length) / len(data) * duration_s


def match(before: Sequence[Word], after: Sequence[Word]) -> Iterator[tuple[Word, Word]]:
    """Words that both have, in the same order: in stretches of three and more, or the only ones of their kind. One "the" among
    others that were heard otherwise may be another "the": times must not decide which it is, so it is left out."""
    said, heard = [word.word for word in before], [word.word for word in after]
    for block in SequenceMatcher(None, said, heard, autojunk=False).get_matching_blocks():
        for one, other in zip(before[block.a : block.a + block.size], after[block.b : block.b + block.size], strict=True):
            if block.size >= _SURE_WORDS or said.count(one.word) == heard.count(one.word) == 1:
                yield one, other


class Listener:
    """Bytes → words, as a run does it, in this process."""

    def __init__(self) -> None:
        config = Config.model_validate({"archive": {"uri": "."}, "decoding": {"kind": "greedy"}, "limits": {"lost_ratio": 1.0}})
        self._config = locate_lm(config)
        self._vocabulary, self._grid = read_vocabulary(find_checkpoint(config.acoustic))
        self._loader = AudioLoader(config)
        self._model = open_model(config.acoustic, config.windows.length_s)
        self._decoder = open_decoder(config.decoding, self._vocabulary)
        self._pruning = PruneConfig.below(config.decoding, self._vocabulary.blank_id)

    def load(self, data: bytes) -> LoadedAudio:
        return self._loader.load(data, Recording("r1", "file:///recording", "1", len(data)))

    def hear(self, audio: LoadedAudio) -> list[Word]:
        waveform, windows = audio.waveforms[0], self._config.windows
        plan = plan_windows(len(waveform), self._grid, windows.length_s, windows.overlap_s)
        log_probs = fuse_windows(emit(self._model, waveform, plan, self._config.acoustic.batch_s), plan, self._grid)
        emissions = sparsify_stretches([log_probs], self._pruning)
        return words_of(self._decoder.decode(emissions, 1)[0], self._grid)


def summarise(one: Found) -> dict[str, Any]:
    return {
        "recordings": one.recordings,
        "refused": sum(one.errors.values()),
        "reasons": dict(one.errors),
        "with_loss": one.with_loss,
        "words": one.words,
        "matched": one.matched,
        "most_off_s": round(max(one.off_s, default=0.0), 3),
        "p99_off_s": round(float(np.quantile(one.off_s, 0.99)) if one.off_s else 0.0, 3),
    }


if __name__ == "__main__":
    sys.exit(main())
