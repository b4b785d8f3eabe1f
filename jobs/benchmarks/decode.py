"""The beam search against pyctcdecode, on the emissions of the embedded model, one core, in turns.

    python -m jobs.benchmarks decode --out infra/benchmarks/decode.json
    python -m jobs.benchmarks decode --archive.manifest evaluation-set/held-out/manifest.csv --random 5000

Without a manifest the recordings are the demo's. pyctcdecode gets the same emissions as dense matrices, made before. Both
search with the 6-gram model, and the native search also with 100 hotwords: 50 from its own texts and 50 that nobody says.
"All new" is a decoder that meets these recordings for the first time, so that it looks every transition up in the model; to
open it is not counted, as for pyctcdecode. "Greedy with LM" keeps one beam.
Also: how often the texts are the same, the largest difference of scores, the same with other workers, the start of a worker
with and without numba's cache, and the memory of 8 workers.
--random N compares N random emissions of a small vocabulary with pyctcdecode, with and without a language model.
"""

from __future__ import annotations

import argparse
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from dictalake.acoustic.checkpoint import find_checkpoint, locate_lm
from dictalake.acoustic.sparse import sparsify
from dictalake.archive.listing import list_recordings
from dictalake.config.load import load_config
from dictalake.config.locations import resolve
from dictalake.config.sections import Config, Decoding
from dictalake.decoding.base import open_decoder
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.evaluation.systems import read_references
from dictalake.records import Emissions
from dictalake.workflow.columns import read_emissions, recordings_to_table
from dictalake.workflow.identity import read_vocabulary
from dictalake.workflow.stages.emit import Emit
from dictalake.workflow.stages.load import Load
from jobs.benchmarks.__main__ import write_result
from jobs.benchmarks.arms import as_ratio

FRAME_S = 0.04
TARGETS = {"beam 8": 8.0, "beam 8, all new": 8.0, "beam 100": 20.0, "hotwords, beam 8": 1.3}
_BLOCK = 16
_WORKERS = 8
_all_at_once: Barrier  # of the workers whose memory is measured
_NOBODY_SAYS = [f"{first}{last}" for first in ("xylo", "quadri", "novo", "zeta", "brevi") for last in (
    *("stentix", "clampex", "drainol", "mesherol", "portacure"),
    *("valvion", "screwine", "plateral", "guidorin", "sheathex"),
)]  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks decode", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archive.manifest", dest="manifest", help="recordings of your own")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="without the memory, the workers and their start")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="random emissions to compare")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args(argv)
    keys = [] if options.manifest is None else [("archive.manifest", options.manifest)]
    config = load_config("demo", keys, environment={})
    vocabulary = read_vocabulary(find_checkpoint(config.acoustic)).vocabulary
    channels = emit_all(config, vocabulary)
    decoding = locate_lm(config).decoding
    result: dict[str, Any] = {
        "benchmark": "decode",
        "recordings": len(channels),
        "audio_s": round(sum(channel.frames for channel in channels) * FRAME_S),
        "kept_frames": sum(channel.kept for channel in channels),
    }
    with tempfile.TemporaryDirectory(prefix="dictalake-bench-") as folder:
        hotwords = write_hotwords(Path(folder) / "hotwords.txt", decoding, vocabulary, channels)
        result |= measure_speed(decoding, vocabulary, channels, str(hotwords), options.rounds)
    if not options.quick:
        result["same_for_any_workers"] = compare_workers(decoding, vocabulary, channels)
        result["memory_of_8_workers_mb"] = {
            engine: measure_memory(decoding.model_copy(update={"engine": engine}), vocabulary, channels[:_BLOCK])
            for engine in ("native", "pyctcdecode")
        }
        result["start_s"] = measure_start()
    if options.random:
        result["random"] = compare_random(options.random)
    show(result, Console())
    write_result(result, options.out)
    return 0


def emit_all(config: Config, vocabulary: Vocabulary) -> list[Emissions]:
    """The emissions of all channels that can be loaded."""
    load, emit = Load(config), Emit(config, vocabulary, os.cpu_count() or 1)
    recordings = read_references(config.archive) if config.archive.manifest else list(list_recordings(config.archive))
    channels: list[Emissions] = []
    for start in range(0, len(recordings), _BLOCK):
        emitted = emit(pa.concat_tables(list(load(recordings_to_table(recordings[start : start + _BLOCK])))))
        for row, error in enumerate(emitted["error"].to_pylist()):
            if error is None:
                channels += read_emissions(emitted, row)
    return channels


def write_hotwords(path: Path, decoding: Decoding, vocabulary: Vocabulary, channels: Sequence[Emissions]) -> Path:
    """50 terms of one and two words from the texts, spread over the recordings, and 50 that nobody says."""
    decoder = open_decoder(decoding, vocabulary)
    texts = [vocabulary.text_of(piece.text for piece in decoder.decode(channel, 1)[0].pieces).split() for channel in channels]
    words = sorted({word for text in texts for word in text if len(word) > 7 and word.isalpha()})
    pairs = sorted({f"{a} {b}" for text in texts for a, b in pairwise(text) if (a + b).isalpha()})
    rng = np.random.default_rng(1)
    said = [*rng.permutation(words)[:25], *rng.permutation(pairs)[:25]]
    path.write_text("\n".join([*said, *_NOBODY_SAYS]) + "\n", encoding="utf-8")
    return path


def measure_speed(
    decoding: Decoding, vocabulary: Vocabulary, channels: Sequence[Emissions], hotwords: str, rounds: int
) -> dict[str, Any]:
    """Seconds of a core for each arm and turn, and ratios within turns; agreement of the best texts and scores."""
    from pyctcdecode.decoder import build_ctcdecoder

    matrices = [channel.dense() for channel in channels]
    words = vocabulary.lm_words()
    theirs = build_ctcdecoder(
        vocabulary.pyctcdecode_labels(),
        None if decoding.lm is None else resolve(decoding.lm),
        unigrams=words.values(),
        alpha=decoding.lm_weight,
        beta=decoding.word_score,
    )

    def ours(**keys: Any) -> Callable[[], list[tuple[str, float]]]:
        decoder = open_decoder(Decoding.model_validate({**decoding.model_dump(), **keys}), vocabulary)

        def run() -> list[tuple[str, float]]:
            best = [decoder.decode(channel, 1)[0] for channel in channels]
            return [(" ".join(words[piece.token_id] for piece in one.pieces), one.total_score) for one in best]

        return run

    def run_theirs(width: int) -> list[tuple[str, float]]:
        prune, least = decoding.beam_prune_logp, decoding.token_min_logp
        best = [theirs.decode_beams(matrix, width, beam_prune_logp=prune, token_min_logp=least)[0] for matrix in matrices]
        return [(text.replace("</s>", ""), float(score)) for text, *_, score in best]

    arms: dict[str, Callable[[], list[tuple[str, float]]]] = {
        "greedy": ours(kind="greedy"),
        "greedy with LM": ours(beam_width=1),
    }
    for width in (8, 100):
        arms[f"beam {width}"] = ours(beam_width=width)
        arms[f"beam {width}, 100 hotwords"] = ours(beam_width=width, hotwords=hotwords)
        arms[f"pyctcdecode, beam {width}"] = lambda width=width: run_theirs(width)  # type: ignore[misc]
    seconds: dict[str, list[float]] = {name: [] for name in [*arms, "beam 8, all new"]}
    said: dict[str, list[tuple[str, float]]] = {}
    for turn in range(rounds + 1):
        arms["beam 8, all new"] = ours()
        for name in list(arms)[:: 1 if turn % 2 else -1]:
            started = time.process_time()
            said[name] = arms[name]()
            if turn:
                seconds[name].append(time.process_time() - started)

    def compare(slow: str, fast: str) -> list[float]:
        return [one / other for one, other in zip(seconds[slow], seconds[fast], strict=True)]

    audio_s = sum(channel.frames for channel in channels) * FRAME_S
    agreement = {}
    for width in (8, 100):
        pairs = list(zip(said[f"beam {width}"], said[f"pyctcdecode, beam {width}"], strict=True))
        agreement[f"beam {width}"] = {
            "same_text": sum(mine[0] == their[0] for mine, their in pairs),
            "scores_within_0.001": sum(abs(mine[1] - their[1]) < 1e-3 for mine, their in pairs),
            "of": len(pairs),
        }
    ratios = {f"beam {width}": as_ratio(compare(f"pyctcdecode, beam {width}", f"beam {width}")) for width in (8, 100)}
    ratios["beam 8, all new"] = as_ratio(compare("pyctcdecode, beam 8", "beam 8, all new"))
    ratios |= {
        f"hotwords, beam {width}": as_ratio(compare(f"beam {width}, 100 hotwords", f"beam {width}")) for width in (8, 100)
    }
    return {
        "ms_a_second_of_audio": {name: round(1000 * statistics.median(took) / audio_s, 4) for name, took in seconds.items()},
        "ratios": ratios,
        "agreement": agreement,
    }


def _decode_ids(decoding: Decoding, vocabulary: Vocabulary, channels: Sequence[Emissions]) -> list[list[int]]:
    decoder = open_decoder(decoding, vocabulary)
    return [[piece.token_id for piece in decoder.decode(channel, 1)[0].pieces] for channel in channels]


def compare_workers(decoding: Decoding, vocabulary: Vocabulary, channels: Sequence[Emissions]) -> bool:
    """Whether one, two, three and eight workers, each with a share of the recordings in another order, write the same."""
    expected = _decode_ids(decoding, vocabulary, channels)
    for workers in (2, 3, _WORKERS):
        shares = [list(reversed(channels[first::workers])) for first in range(workers)]
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:
            found = list(pool.map(_decode_ids, [decoding] * workers, [vocabulary] * workers, shares))
        for first, share in enumerate(found):
            if list(reversed(share)) != expected[first::workers]:
                return False
    return True


def _measure_private(decoding: Decoding, vocabulary: Vocabulary, channels: Sequence[Emissions]) -> tuple[float, float]:
    """The proportional and the private memory that decoding adds to a process, MB."""

    def read() -> tuple[float, float]:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
        pss, *private = (float(fields[name].split()[0]) / 1000 for name in ("Pss", "Private_Clean", "Private_Dirty"))
        return pss, sum(private)

    _all_at_once.wait()
    before = read()
    decoder = open_decoder(decoding, vocabulary)
    for channel in channels:
        decoder.decode(channel, 1)
    _all_at_once.wait()  # pages are only shared while the others have theirs too
    after = read()
    _all_at_once.wait()
    return after[0] - before[0], after[1] - before[1]


def _wait_with(barrier: Barrier) -> None:
    global _all_at_once
    _all_at_once = barrier


def measure_memory(decoding: Decoding, vocabulary: Vocabulary, channels: Sequence[Emissions]) -> dict[str, float]:
    """What 8 workers take together beyond an empty Python with this package, MB: shared pages once, and private ones."""
    context = get_context("spawn")
    with ProcessPoolExecutor(_WORKERS, context, _wait_with, (context.Barrier(_WORKERS),)) as pool:
        found = list(pool.map(_measure_private, [decoding] * _WORKERS, [vocabulary] * _WORKERS, [channels] * _WORKERS))
    return {"shared_once": round(sum(pss for pss, _ in found)), "private": round(sum(private for _, private in found))}


_START = """
import pickle, sys, time
from dictalake.config.sections import Decoding
from dictalake.decoding.base import open_decoder
with open(sys.argv[2], "rb") as stream:
    vocabulary, emissions = pickle.load(stream)
imported = time.process_time()
open_decoder(Decoding.model_validate({"engine": sys.argv[1], "lm": None}), vocabulary).decode(emissions)
print(time.process_time() - imported)
"""
START_VOCABULARY = Vocabulary.from_pieces(["<pad>", "</s>", "<unk>", *(f"▁w{number}" for number in range(40))], blank_id=0)


def make_start_emissions(seed: int = 1, frames: int = 60) -> Emissions:
    """Random ones, with pauses and ties of two or three tokens."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-6, 1, (frames, len(START_VOCABULARY.pieces)))
    for row in logits:
        row[rng.choice(np.arange(3, len(row)), 3, replace=False)] = rng.normal(1, 1.2, 3)
        row[0] = rng.choice([0.0, 2.0, 12.0])
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return sparsify(log_probs.astype(np.float32), -5.5, 0.999, 0)


def measure_start() -> dict[str, float]:
    """Processor seconds from opening a decoder to its first text, in a fresh process, by the state of numba's cache."""

    def run(engine: str, folder: str) -> float:
        given = Path(folder) / "given.pickle"
        given.write_bytes(pickle.dumps((START_VOCABULARY, make_start_emissions())))
        command = [sys.executable, "-c", _START, engine, str(given)]
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

    with tempfile.TemporaryDirectory() as folder:
        arms = {"pyctcdecode": "pyctcdecode", "cold": "native", "warm": "native"}
        return {name: round(run(engine, folder), 2) for name, engine in arms.items()}


def compare_random(count: int) -> dict[str, Any]:
    """Random emissions of a small vocabulary: same texts and scores as pyctcdecode, with and without a language model."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        lm = _write_random_lm(Path(folder) / "lm.arpa")
        for name, of_lm in (("without a language model", None), ("with one", lm)):
            engines = [
                open_decoder(Decoding.model_validate({"engine": engine, "lm": of_lm}), START_VOCABULARY)
                for engine in ("native", "pyctcdecode")
            ]
            same = near = 0
            for seed in range(count):
                emissions = make_start_emissions(seed, 1 + seed % 60)
                mine, their = (engine.decode(emissions, 1)[0] for engine in engines)
                same += [piece.token_id for piece in mine.pieces] == [piece.token_id for piece in their.pieces]
                near += abs(mine.total_score - their.total_score) < 1e-3
            result[name] = {"same_text": same, "scores_within_0.001": near, "of": count}
    return result


def _write_random_lm(path: Path) -> str:
    rng = np.random.default_rng(7)
    words = list(START_VOCABULARY.lm_words().values())
    unigrams = ["-5\t<unk>\t0", "-99\t<s>\t-0.3", "-1\t</s>", *(f"{-1 - 2 * rng.random():.4f}\t{word}\t-0.3" for word in words)]
    bigrams = [f"{-2 * rng.random():.4f}\t{a} {b}" for a in words for b in words if rng.random() < 0.3]
    lines = ["\\data\\", f"ngram 1={len(unigrams)}", f"ngram 2={len(bigrams)}", "", "\\1-grams:", *unigrams, "", "\\2-grams:"]
    path.write_text("\n".join([*lines, *bigrams, "", "\\end\\", ""]), encoding="utf-8")
    return str(path)


def show(result: dict[str, Any], console: Console) -> None:
    table = Table(
        "arm", "ms a second of audio", "times real time", title=f"{result['recordings']} channels, {result['audio_s']} s"
    )
    for name, took in result["ms_a_second_of_audio"].items():
        table.add_row(name, f"{took:.4f}", f"{1000 / took:,.0f}")
    console.print(table)
    for name, ratio in result["ratios"].items():
        wanted = f"; the target is {TARGETS[name]:g}" if name in TARGETS else ""
        console.print(f"{name}: {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}){wanted}", highlight=False)
    for name in ("agreement", "same_for_any_workers", "memory_of_8_workers_mb", "start_s", "random"):
        if name in result:
            console.print(f"{name}: {result[name]}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
