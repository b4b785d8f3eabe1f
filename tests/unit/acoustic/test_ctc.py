"""LASR models of Hugging Face: they give the numbers that transformers gives, for one window or for a batch."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    LasrForCTC,
    LasrProcessor,
)

from dictalake.acoustic.ctc import CtcModel
from dictalake.acoustic.fusion import fuse_windows
from dictalake.acoustic.sparse import sparsify
from dictalake.acoustic.weights import load_checkpoint
from dictalake.acoustic.windows import cut_window, plan_windows
from dictalake.decoding.greedy import GreedyDecoder
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.records import Emissions, FrameGrid
from tests.ctc_models import load, make_waveform

BLANK = 0


@pytest.fixture(scope="module")
def lasr(random_lasr: Path) -> CtcModel:
    return load(random_lasr)


@pytest.fixture(scope="module")
def vocabulary(random_lasr: Path) -> Vocabulary:
    tokenizer = LasrProcessor.from_pretrained(random_lasr).tokenizer
    return Vocabulary.from_tokenizer(tokenizer, model_vocabulary_size=64, blank_id=BLANK)


def hear(model: CtcModel, waveform: np.ndarray) -> Emissions:
    """As the pipeline does it: windows, model, fusion, compaction."""
    windows = plan_windows(len(waveform), model.grid, 20.0, 2.0)
    emitted = model.emit([cut_window(waveform, window) for window in windows])
    return sparsify(fuse_windows(emitted, windows, model.grid), -5.5, 0.999, BLANK)


# What transformers says


@pytest.mark.parametrize("seconds", [0.3, 1.0, 3.37, 11.0])
def test_greedy_tokens_are_those_of_transformers_own_path(
    lasr: CtcModel, vocabulary: Vocabulary, random_lasr: Path, seconds: float
) -> None:
    waveform = make_waveform(seconds, seed=7)
    processor = LasrProcessor.from_pretrained(random_lasr)
    model = LasrForCTC.from_pretrained(random_lasr, dtype=torch.float32).eval()
    inputs = processor(waveform / np.float32(32768), sampling_rate=16_000, return_tensors="pt")
    path = model.generate(**inputs)[0].tolist()
    collapsed = [token for token, before in zip(path, [None, *path], strict=False) if token != before and token != BLANK]

    (hypothesis,) = GreedyDecoder(vocabulary).decode(hear(lasr, waveform))
    assert [piece.token_id for piece in hypothesis.pieces] == collapsed
    # The tokenizer merges repeats and drops blanks itself; its text has the pieces' spaces.
    text = processor.tokenizer.decode(path, skip_special_tokens=True)
    assert " ".join(text.split()) == vocabulary.text_of(piece.text for piece in hypothesis.pieces)
    assert len(collapsed) >= 2


def test_log_probabilities_are_those_of_transformers(lasr: CtcModel, random_lasr: Path) -> None:
    """Padding to a round length behind a mask changes nothing: 1.3 s are padded to 2 s here, and not there."""
    waveform = make_waveform(1.3, seed=3)
    processor = LasrProcessor.from_pretrained(random_lasr)
    inputs = processor(waveform / np.float32(32768), sampling_rate=16_000, return_tensors="pt")
    model = LasrForCTC.from_pretrained(random_lasr, dtype=torch.float32).eval()
    with torch.inference_mode():
        wanted = model(input_features=inputs["input_features"]).logits[0].log_softmax(-1).numpy()
    (got,) = lasr.emit([waveform])
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got[wanted > -20], wanted[wanted > -20], atol=0.02)


def test_lasr_sees_2320_samples_every_640(lasr: CtcModel) -> None:
    assert lasr.grid == FrameGrid(step=640, receptive=2320)
    windows = [make_waveform(1.0, 0)[:samples] for samples in (2320, 2959, 2960, 16_000)]
    emitted = lasr.emit(windows)
    assert [len(matrix) for matrix in emitted] == [1, 1, 2, 22]
    assert all(matrix.dtype == np.float32 for matrix in emitted)
    for matrix in emitted:
        np.testing.assert_allclose(np.exp(matrix.astype(np.float64)).sum(axis=1), 1.0, atol=1e-4)


def test_what_a_window_is_padded_to_does_not_matter(lasr: CtcModel, random_lasr: Path) -> None:
    """15,000 samples go through padded to a second and masked; so they do by transformers' own path without any padding."""
    waveform = make_waveform(2.0, seed=5)[:15_000]
    padded = lasr.emit([waveform])[0]
    features = lasr._log_mel(torch.from_numpy(waveform)[None].float() / 32768)
    with torch.inference_mode():
        alone = LasrForCTC.from_pretrained(random_lasr)(input_features=features).logits[0].log_softmax(-1).numpy()
    assert len(padded) == len(alone) == lasr.grid.frames_of(15_000)
    np.testing.assert_allclose(padded[alone > -10], alone[alone > -10], atol=2e-3)


# Batches


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_window_gives_the_same_in_any_company(random_lasr: Path, dtype: str) -> None:
    windows = [make_waveform(seconds, seed) for seed, seconds in enumerate((20.0, 0.2, 20.0, 19.5, 7.3, 1.3, 0.145, 7.9, 8.0))]
    model = load(random_lasr, dtype=dtype)
    alone = [model.emit([window])[0] for window in windows]
    for model.batch_s in (40.0, 1000.0):
        for got, wanted in zip(model.emit(windows), alone, strict=True):
            assert (got.argmax(axis=1) == wanted.argmax(axis=1)).all()
            np.testing.assert_allclose(got[wanted > -10], wanted[wanted > -10], atol=0.01)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_batches_side_by_side_give_what_one_after_the_other_gives(random_lasr: Path, dtype: str) -> None:
    windows = [make_waveform(seconds, seed) for seed, seconds in enumerate((4.0,) * 9 + (0.2, 3.5, 7.3, 1.3, 0.145))]
    before = torch.get_num_threads()
    one, two, three = (CtcModel(*load_checkpoint(random_lasr), "cpu", dtype, 24.0, lanes) for lanes in (1, 2, 3))
    wanted = one.emit(windows)
    for _ in range(3):
        for got, other, usual in zip(three.emit(windows), two.emit(windows), wanted, strict=True):
            np.testing.assert_allclose(got, other, rtol=1e-5 if dtype == "float32" else 2e-2, atol=1e-4)
            assert (got.argmax(axis=1) == usual.argmax(axis=1)).all()
            np.testing.assert_allclose(got[usual > -10], usual[usual > -10], atol=0.01)
    assert torch.get_num_threads() == before
    assert three.emit([]) == []


def test_lanes_share_the_seconds_of_a_batch_and_each_gets_some(random_lasr: Path) -> None:
    model = CtcModel(*load_checkpoint(random_lasr), "cpu", "float32", 90.0, lanes=2)
    assert [len(indices) for _, indices in model.batches([320_000] * 7)] == [2, 2, 2, 1]
    assert [len(indices) for _, indices in model.batches([16_000] * 8)] == [4, 4]


def test_a_lane_that_fails_fails_the_call_and_the_next_call_works(random_lasr: Path) -> None:
    model = CtcModel(*load_checkpoint(random_lasr), "cpu", "float32", 8.0, lanes=2)
    windows = [make_waveform(4.0, seed) for seed in range(6)]
    with pytest.raises((TypeError, ValueError)):
        model.emit([*windows[:3], "no waveform of the same length".ljust(64_000), *windows[3:]])  # type: ignore[list-item]
    assert [len(matrix) for matrix in model.emit(windows)] == [97] * 6


def test_batches_stay_below_the_asked_seconds(random_lasr: Path) -> None:
    model = CtcModel(*load_checkpoint(random_lasr), "cpu", "float32", batch_s=45.0)
    lengths = [320_000] * 5 + [1_000] * 3 + [48_000] * 40
    batches = list(model.batches(lengths))
    assert sorted(index for _, indices in batches for index in indices) == list(range(48))
    assert [(length, len(indices)) for length, indices in batches[:3]] == [(320_000, 2), (320_000, 2), (320_000, 1)]
    assert all(length * len(indices) <= 45 * 16_000 for length, indices in batches)
    assert all(lengths[index] <= length < lengths[index] + 16_000 for length, indices in batches for index in indices)
    assert [before >= after for (before, _), (after, _) in pairwise(batches)]


def test_no_windows_give_no_matrices(lasr: CtcModel) -> None:
    assert lasr.emit([]) == []


def test_a_window_larger_than_a_batch_goes_alone(random_lasr: Path) -> None:
    assert [len(m) for m in load(random_lasr, batch_s=1.0).emit([make_waveform(3.0, 1), make_waveform(3.0, 2)])] == [72, 72]


# Recordings of all lengths


def test_a_twentieth_of_a_second_is_one_frame(lasr: CtcModel, vocabulary: Vocabulary) -> None:
    emissions = hear(lasr, make_waveform(0.05, seed=1))
    assert emissions.frames == 1
    assert len(GreedyDecoder(vocabulary).decode(emissions)) == 1


def test_a_long_recording_has_as_many_frames_as_one_long_window(lasr: CtcModel) -> None:
    waveform = make_waveform(50.0, seed=9)
    assert hear(lasr, waveform).frames == lasr.grid.frames_of(len(waveform)) == 1247
