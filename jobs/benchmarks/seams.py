"""Counts word errors of long recordings within two seconds of a seam between windows, and elsewhere.

    python -m jobs.benchmarks seams --archive.manifest long.csv

It compares these ways to cut, with the same recordings, model and decoder:

fused    as dictalake does it: overlapping windows, averaged with the halves of a Hamming window over each overlap
hamming  the same windows, weighted by a Hamming window over all of a window, as MedASR's paper does it
cut      the same windows, cut in the middle of each overlap
stride   as the Hugging Face pipeline does it: 20 s with a stride of 2 s on both sides (overlaps of 4 s, cut in the middle)
pauses   windows that end at quiet places, fused
whole    one pass over the whole recording, where it is at most --whole-s long

All use the seams of `fused`, so that `whole` shows how hard these places are without a seam.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import jiwer
import numpy as np
from rich.console import Console
from rich.table import Table

from dictalake.acoustic.checkpoint import find_checkpoint, locate_lm
from dictalake.acoustic.fusion import fuse_windows
from dictalake.acoustic.model import AcousticModel, open_model
from dictalake.acoustic.sparse import sparsify_stretches
from dictalake.acoustic.window_output import PruneConfig
from dictalake.acoustic.windows import cut_window, plan_windows
from dictalake.cli.options import make_parser, read_config
from dictalake.config.sections import Config
from dictalake.decoding.base import open_decoder
from dictalake.evaluation.normalise import normalise_medasr
from dictalake.evaluation.systems import REFERENCE, read_references
from dictalake.records import SAMPLE_RATE_HZ, FrameGrid, Window
from dictalake.transcript.words import words_of
from dictalake.workflow import columns
from dictalake.workflow.stages.load import Load
from jobs.benchmarks.__main__ import write_result

NEAR_S = 2.0
_STRIDE_OVERLAP_S = 4.0
_SEARCHED_S = 4.0  # the quietest place is searched for in these last seconds of a window

Plan = tuple[Window, ...]


@dataclass(frozen=True)
class Arm:
    """A way to cut a recording and to join it again. ``plan`` gives no window if the way does not apply."""

    plan: Callable[[np.ndarray], Plan]
    join: Callable[[Sequence[np.ndarray], Plan, FrameGrid], np.ndarray]


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("bench seams", __doc__ or "")
    parser.add_argument("--whole-s", type=float, default=180.0, help="longest recording for a single pass")
    parser.add_argument("--result", type=Path, help="JSON file for the figures")
    arguments = parser.parse(argv)
    config = locate_lm(read_config(arguments))
    from dictalake.workflow.identity import read_vocabulary

    vocabulary, grid = read_vocabulary(find_checkpoint(config.acoustic))
    model, decoder = open_model(config.acoustic, config.windows.length_s), open_decoder(config.decoding, vocabulary)
    arms = make_arms(config, grid, arguments.whole_s)
    counts: dict[str, Counter[str]] = {name: Counter() for name in arms}
    seconds = 0.0
    for waveform, reference in load_references(config):
        seconds += len(waveform) / SAMPLE_RATE_HZ
        seams = seam_times(arms["fused"].plan(waveform))
        is_short = bool(arms["whole"].plan(waveform))
        for name, arm in arms.items():
            plan = arm.plan(waveform)
            if not plan:
                continue
            log_probs = arm.join(emit(model, waveform, plan, config.acoustic.batch_s), plan, grid)
            emissions = sparsify_stretches([log_probs], PruneConfig.below(config.decoding, vocabulary.blank_id))
            words = words_of(decoder.decode(emissions, 1)[0], grid)
            heard = [(token, word.start_s) for word in words for token in normalise_medasr(word.word).split()]
            found = count_near(normalise_medasr(reference).split(), heard, seams)
            counts[name] += found
            if is_short:
                counts[name] += Counter({f"{key}_short": value for key, value in found.items()})
    rows = [summarise(name, counted) for name, counted in counts.items()]
    show(rows, arguments.whole_s, seconds, Console(width=120))
    write_result({"bench": "seams", "near_s": NEAR_S, "hours": round(seconds / 3600, 2), "results": rows}, arguments.result)
    return 0


def make_arms(config: Config, grid: FrameGrid, whole_s: float) -> dict[str, Arm]:
    length_s, overlap_s = config.windows.length_s, config.windows.overlap_s

    def plan(waveform: np.ndarray) -> Plan:
        return plan_windows(len(waveform), grid, length_s, overlap_s)

    return {
        "fused": Arm(plan, fuse_windows),
        "hamming": Arm(plan, average_with_hamming),
        "cut": Arm(plan, cut_in_the_middle),
        "stride": Arm(lambda waveform: plan_windows(len(waveform), grid, length_s, _STRIDE_OVERLAP_S), cut_in_the_middle),
        "pauses": Arm(lambda waveform: plan_at_pauses(waveform, grid, length_s, overlap_s), fuse_windows),
        "whole": Arm(
            lambda waveform: (Window(0, len(waveform)),) if len(waveform) <= whole_s * SAMPLE_RATE_HZ else (), fuse_windows
        ),
    }


def load_references(config: Config) -> Iterator[tuple[np.ndarray, str]]:
    """The first channel, int16 at 16 kHz, and the reference of each readable recording that has one."""
    load = Load(config)
    for recording in read_references(config.archive):
        if REFERENCE not in recording.metadata:
            continue
        for table in load(columns.recordings_to_table([recording])):
            if table["error"][0].as_py() is None:
                yield columns.read_waveforms(table, 0)[0], recording.metadata[REFERENCE]


def emit(model: AcousticModel, waveform: np.ndarray, plan: Plan, batch_s: float) -> list[np.ndarray]:
    """The model's output for the windows, computed a few minutes at a time."""
    size = max(1, int(4 * batch_s * SAMPLE_RATE_HZ // max(window.length for window in plan)))
    parts = [plan[start : start + size] for start in range(0, len(plan), size)]
    return [log_probs for part in parts for log_probs in model.emit([cut_window(waveform, window) for window in part])]


def average_with_hamming(log_probs: Sequence[np.ndarray], plan: Plan, grid: FrameGrid) -> np.ndarray:
    """Posteriors weighted by a Hamming window over each window's frames."""
    ends = [window.start // grid.step + len(rows) for window, rows in zip(plan, log_probs, strict=True)]
    total, weight_sum = np.zeros((max(ends), log_probs[0].shape[1])), np.zeros((max(ends), 1))
    for rows, window, end in zip(log_probs, plan, ends, strict=True):
        weights = np.hamming(len(rows) + 2)[1:-1, None]
        total[window.start // grid.step : end] += weights * np.exp(rows)
        weight_sum[window.start // grid.step : end] += weights
    return np.log(np.maximum(total / weight_sum, 1e-30)).astype(np.float32)


def cut_in_the_middle(log_probs: Sequence[np.ndarray], plan: Plan, grid: FrameGrid) -> np.ndarray:
    """Takes each frame from the window in whose half of the overlap it lies, without averaging."""
    starts = [window.start // grid.step for window in plan]
    ends = [start + len(rows) for start, rows in zip(starts, log_probs, strict=True)]
    borders = [0, *((start + end) // 2 for start, end in zip(starts[1:], ends[:-1], strict=True)), ends[-1]]
    parts = zip(log_probs, starts, pairwise(borders), strict=True)
    return np.concatenate([rows[first - start : last - start] for rows, start, (first, last) in parts])


def plan_at_pauses(waveform: np.ndarray, grid: FrameGrid, length_s: float, overlap_s: float) -> Plan:
    """Windows of at most ``length_s``; the middle of each overlap is the quietest half second of the last ``_SEARCHED_S``."""
    step = grid.step
    length, overlap = (int(seconds * SAMPLE_RATE_HZ) // step * step for seconds in (length_s, overlap_s))
    energy = np.square(waveform.astype(np.float64))
    smooth = np.concatenate([[0.0], np.cumsum(energy)])
    half = SAMPLE_RATE_HZ // 4
    windows = []
    start = 0
    while start + length < len(waveform):
        last = start + length - overlap // 2
        earliest = max(last - int(_SEARCHED_S * SAMPLE_RATE_HZ), start + overlap + step)  # the next window must begin later
        middles = np.arange(earliest, last, step) if earliest < last else np.array([last])
        middle = int(middles[np.argmin(smooth[middles + half] - smooth[middles - half])])
        end = (middle + overlap // 2) // step * step
        windows.append(Window(start, end - start))
        start = end - overlap
    return (*windows, Window(start, len(waveform) - start))


def seam_times(plan: Plan) -> np.ndarray:
    """The middle of each overlap in seconds."""
    middles = [(after.start + before.start + before.length) / 2 for before, after in pairwise(plan)]
    return np.array(middles) / SAMPLE_RATE_HZ


def count_near(reference: Sequence[str], heard: Sequence[tuple[str, float]], seams: np.ndarray) -> Counter[str]:
    """Reference words and errors, near a seam and elsewhere. A deleted word has the place of its neighbours."""
    counted: Counter[str] = Counter()
    times = [time for _, time in heard]

    def place(time_s: float) -> str:
        return "near" if len(seams) and np.abs(seams - time_s).min() <= NEAR_S else "far"

    if not heard:
        return Counter({"far_words": len(reference), "far_errors": len(reference)})
    for chunk in jiwer.process_words(" ".join(reference), " ".join(token for token, _ in heard)).alignments[0]:
        said, got = chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
        around = times[max(0, chunk.hyp_start_idx - 1) : chunk.hyp_end_idx + 1]
        for index in range(max(said, got)):
            at = place(times[chunk.hyp_start_idx + index] if index < got else float(np.mean(around)))
            counted[f"{at}_words"] += index < said
            counted[f"{at}_errors"] += chunk.type != "equal"
    return counted


def summarise(name: str, counted: Counter[str]) -> dict[str, str | float | int]:
    row: dict[str, str | float | int] = {"arm": name}
    for suffix in ("", "_short"):
        words = {at: counted[f"{at}_words{suffix}"] for at in ("near", "far")}
        errors = {at: counted[f"{at}_errors{suffix}"] for at in ("near", "far")}
        row |= {f"{at}_words{suffix}": words[at] for at in words}
        row |= {f"{at}_wer{suffix}": round(100 * errors[at] / max(1, words[at]), 3) for at in words}
        row[f"wer{suffix}"] = round(100 * sum(errors.values()) / max(1, sum(words.values())), 3)
    return row


def show(rows: Sequence[dict[str, str | float | int]], whole_s: float, seconds: float, console: Console) -> None:
    table = Table(title=f"word errors, %, within {NEAR_S:g} s of a seam and elsewhere; {seconds / 3600:.1f} h")
    headers = ("arm", "near", "elsewhere", "all", f"near, ≤ {whole_s:g} s", "elsewhere", "all")
    for header in headers:
        table.add_column(header, justify="right")
    for row in rows:
        names = ("near_wer", "far_wer", "wer")
        full = ["–"] * 3 if row["arm"] == "whole" else [f"{row[name]:.2f}" for name in names]
        table.add_row(str(row["arm"]), *full, *(f"{row[f'{name}_short']:.2f}" for name in names))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
