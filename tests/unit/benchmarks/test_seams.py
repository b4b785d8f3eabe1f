"""At the seams of windows no text is lost and none repeated, whatever the windows' length and wherever the speech begins."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dictalake.acoustic.fusion import fuse_windows
from dictalake.acoustic.sparse import sparsify
from dictalake.acoustic.windows import plan_windows
from dictalake.config.sections import Decoding
from dictalake.decoding.base import open_decoder
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.records import FrameGrid, Window
from jobs.benchmarks.seams import count_near, cut_in_the_middle, plan_at_pauses, seam_times

GRID = FrameGrid(step=640, receptive=2320)
PIECES = ["<pad>", *(f"▁w{i}" for i in range(40))]
VOCABULARY = Vocabulary.from_pieces(PIECES, blank_id=0)
EDGE_FRAMES = 8  # a third of a second in which a window hears badly for want of context


def hear(spoken: dict[int, int], window: Window, rng: np.random.Generator) -> np.ndarray:
    """What a model says of a window: each piece at its frame, sure of itself but near the window's edges, where it is half
    as sure and, as CTC models do, may put its peak a frame beside."""
    first, frames = window.start // GRID.step, GRID.frames_of(window.length)
    probabilities = np.full((frames, len(PIECES)), 1e-6)
    probabilities[:, 0] = 1.0
    for frame, token in spoken.items():
        at = frame - first
        if not 0 <= at < frames:
            continue
        is_near_edge = (at < EDGE_FRAMES and first > 0) or (at >= frames - EDGE_FRAMES)
        at = min(max(at + int(rng.integers(-1, 2)), 0), frames - 1) if is_near_edge else at
        probabilities[at, [0, token]] = (0.5, 0.5) if is_near_edge else (0.02, 0.98)
    return np.log(probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)


def speak(rng: np.random.Generator, frames: int) -> dict[int, int]:
    """Frames of pieces, three to twelve apart, with a pause now and then; no piece twice in a row."""
    spoken: dict[int, int] = {}
    frame, token = int(rng.integers(0, 40)), 0
    while frame < frames:
        token = int(rng.choice([t for t in range(1, len(PIECES)) if t != token]))
        spoken[frame] = token
        frame += int(rng.integers(60, 150)) if rng.random() < 0.05 else int(rng.integers(3, 13))
    return spoken


@pytest.mark.parametrize("kind", ["greedy", "beam"])
@given(
    seed=st.integers(0, 2**31),
    length_s=st.floats(5, 40),
    overlap_s=st.floats(1.5, 2.5),
    lead_samples=st.integers(0, 20 * 16_000),
)
def test_no_text_is_lost_or_repeated_at_a_seam(
    kind: str, seed: int, length_s: float, overlap_s: float, lead_samples: int
) -> None:
    rng = np.random.default_rng(seed)
    samples = 60 * 16_000 + lead_samples
    last_sure = GRID.frames_of(samples) - EDGE_FRAMES
    lead = lead_samples // GRID.step
    spoken = {frame + lead: token for frame, token in speak(rng, last_sure - lead).items() if frame + lead < last_sure}
    plan = plan_windows(samples, GRID, length_s, overlap_s)
    fused = fuse_windows([hear(spoken, window, rng) for window in plan], plan, GRID)
    decoder = open_decoder(Decoding.model_validate({"kind": kind, "lm": None}), VOCABULARY)
    best = decoder.decode(sparsify(fused, -5.5, 0.999, 0))[0]
    assert [piece.token_id for piece in best.pieces] == list(spoken.values())


def test_a_cut_without_fusion_would_lose_or_repeat_text() -> None:
    # The property above can fail: the same windows, cut in the middle of an overlap that is as narrow as what is heard badly.
    wrong = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        samples = 120 * 16_000
        spoken = speak(rng, GRID.frames_of(samples) - EDGE_FRAMES)
        plan = plan_windows(samples, GRID, 6.0, 0.3)
        cut = cut_in_the_middle([hear(spoken, window, rng) for window in plan], plan, GRID)
        decoder = open_decoder(Decoding.model_validate({"kind": "greedy"}), VOCABULARY)
        best = decoder.decode(sparsify(cut, -5.5, 0.999, 0))[0]
        wrong += [piece.token_id for piece in best.pieces] != list(spoken.values())
    assert wrong > 10


@given(st.integers(2320, 100 * 16_000), st.floats(2, 30))
def test_cutting_in_the_middle_keeps_each_frame_once(samples: int, length_s: float) -> None:
    plan = plan_windows(samples, GRID, length_s, 0.5)
    numbered = [(np.arange(GRID.frames_of(window.length)) + window.start // GRID.step)[:, None] for window in plan]
    assert cut_in_the_middle(numbered, plan, GRID)[:, 0].tolist() == list(range(GRID.frames_of(samples)))


def test_windows_at_pauses_overlap_where_it_is_quiet() -> None:
    rng = np.random.default_rng(0)
    waveform = (rng.normal(0, 3000, 60 * 16_000)).astype(np.int16)
    waveform[17 * 16_000 : 18 * 16_000] //= 100
    plan = plan_at_pauses(waveform, GRID, 20.0, 2.0)
    assert seam_times(plan)[0] == pytest.approx(17.5, abs=0.5)
    assert plan[-1].start + plan[-1].length == len(waveform)
    assert all(window.length <= 20 * 16_000 for window in plan)


def test_errors_are_counted_where_they_are() -> None:
    heard = [("a", 1.0), ("x", 9.0), ("c", 10.0), ("d", 30.0), ("e", 31.0)]
    counted = count_near(["a", "b", "c", "lost", "d"], heard, np.array([10.0]))
    # "x" for "b" at 9 s; "lost" between 10 and 30 s, "e" too much at 31 s
    assert counted == Counter(near_words=2, near_errors=1, far_words=3, far_errors=2)
