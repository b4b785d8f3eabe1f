"""What the device selects gives, fused and joined, the emissions that all its log-probabilities give, to the last bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dictalake.acoustic.ctc import CtcModel
from dictalake.acoustic.fusion import find_exclusive_frames, fuse_in_stretches, fuse_windows
from dictalake.acoustic.sparse import sparsify_stretches
from dictalake.acoustic.sparse_on_device import DeviceSparsifier, FrameSpan
from dictalake.acoustic.window_output import PruneConfig
from dictalake.acoustic.windows import cut_window, plan_windows
from dictalake.config.sections import Acoustic
from dictalake.records import Emissions, FrameGrid, Window
from tests.recordings import make_sound

GRID = FrameGrid(step=640, receptive=2320)


@dataclass(frozen=True)
class Batch:
    """Logits of the windows of a recording, with padding behind their frames."""

    logits: torch.Tensor
    plan: tuple[Window, ...]
    pruning: PruneConfig

    @property
    def frames(self) -> list[int]:
        return [GRID.frames_of(window.length) for window in self.plan]

    @property
    def spans(self) -> list[FrameSpan]:
        return [FrameSpan(n, *alone) for n, alone in zip(self.frames, find_exclusive_frames(self.plan, GRID), strict=True)]

    def select(self, tokens_a_frame: int = 4) -> Emissions:
        heard = DeviceSparsifier(self.logits, self.spans, self.pruning, tokens_a_frame).read()
        return sparsify_stretches(fuse_in_stretches(heard, self.plan, GRID), self.pruning)

    def usual(self) -> Emissions:
        log_probs = self.logits.float().log_softmax(-1).numpy()
        whole = fuse_windows([rows[:n] for rows, n in zip(log_probs, self.frames, strict=True)], self.plan, GRID)
        return sparsify_stretches([whole], self.pruning)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Peaky logits with runs of blanks, close calls, exact ties, and frames in which nothing is likely."""
    seconds = draw(st.sampled_from([(4.0, 1.0), (4.0, 2.0), (4.0, 3.5), (4.0, 0.0), (20.0, 2.0)]))
    plan = plan_windows(draw(st.integers(0, 250_000)), GRID, *seconds)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    vocabulary, blank = draw(st.integers(2, 300)), draw(st.integers(0, 1))
    frames = max(GRID.frames_of(window.length) for window in plan) + draw(st.integers(0, 3))
    logits = rng.normal(0, draw(st.sampled_from([0.0, 1.0, 6.0])), (len(plan), frames, vocabulary))
    sure = rng.random((len(plan), frames)) < draw(st.floats(0, 1))
    logits[..., blank] += np.where(sure, draw(st.sampled_from([3.0, 12.0, 40.0])), 0.0)
    if draw(st.booleans()):
        logits = np.round(logits)
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16]))
    pruning = PruneConfig(
        draw(st.sampled_from([-1.0, -5.5, -9.0, -60.0])), draw(st.sampled_from([0.5, 0.9, 0.999, 1.0])), blank
    )
    return Batch(torch.from_numpy(logits).to(dtype), plan, pruning)


def assert_same(got: Emissions, wanted: Emissions) -> None:
    assert (got.frames, got.vocabulary_size) == (wanted.frames, wanted.vocabulary_size)
    for name in ("frame_index", "offsets", "token_ids", "logp"):
        mine, theirs = getattr(got, name), getattr(wanted, name)
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs, err_msg=name)


@settings(max_examples=300, deadline=None)
@given(batches())
def test_what_the_device_selects_gives_the_emissions_of_the_dense_matrix(batch: Batch) -> None:
    assert_same(batch.select(), batch.usual())


@settings(max_examples=100, deadline=None)
@given(batches(), st.sampled_from([1, 2]))
def test_more_tokens_than_there_was_room_for_are_all_there(batch: Batch, tokens_a_frame: int) -> None:
    assert_same(batch.select(tokens_a_frame), batch.usual())


@settings(max_examples=100, deadline=None)
@given(batches())
def test_windows_heard_with_nothing_alone_come_whole(batch: Batch) -> None:
    log_probs = batch.logits.float().log_softmax(-1).numpy()
    for heard, rows, frames in zip(
        DeviceSparsifier(batch.logits, [FrameSpan(n, 0, 0) for n in batch.frames], batch.pruning).read(),
        log_probs,
        batch.frames,
        strict=True,
    ):
        assert (len(heard.before), heard.exclusive.frames) == (0, 0)
        np.testing.assert_array_equal(heard.after, rows[:frames])


@pytest.mark.parametrize("frame", [0, 40, 96])
def test_a_number_that_is_none_is_an_error_wherever_it_is_and_not_in_padding(frame: int) -> None:
    plan = plan_windows(7 * 16_000, GRID, 4.0, 1.0)
    frames = [GRID.frames_of(window.length) for window in plan]
    logits = torch.zeros(len(plan), max(frames) + 2, 7)
    batch = Batch(logits, plan, PruneConfig(-5.5, 0.999, 0))
    for row, length in enumerate(frames):
        logits[row, length:] = torch.nan
    assert batch.select().frames == batch.usual().frames
    logits[1, frame, 3] = torch.nan
    with pytest.raises(ValueError, match="hold NaN"):
        batch.select()


def test_a_model_with_fewer_frames_than_it_should_have_is_refused() -> None:
    """Else one window would be given the next one's."""
    with pytest.raises(ValueError, match="gave 12 frames of a window, where its configuration says 24"):
        DeviceSparsifier(torch.zeros(2, 12, 5), [FrameSpan(24, 0, 0)] * 2, PruneConfig(-5.5, 0.999, 0))


def test_a_vocabulary_beyond_uint16_is_refused() -> None:
    with pytest.raises(ValueError, match="70000 does not fit uint16; at most 65536"):
        DeviceSparsifier(torch.zeros(1, 1, 70_000), [FrameSpan(1, 0, 1)], PruneConfig(-5.5, 0.999, 0))


def test_little_crosses_the_bus_where_a_model_is_sure() -> None:
    """Twenty seconds of 512 pieces: what neighbours share is a fifth of it, the rest is a twentieth."""
    logits = torch.zeros(8, 497, 512)
    logits[:, ::7, 5] = 30.0
    logits[:, 1::7, 0] = 30.0
    dense = logits.nbytes
    whole = DeviceSparsifier(logits, [FrameSpan(497, 0, 0)] * 8, PruneConfig(-5.5, 0.999, 0))
    sparse = DeviceSparsifier(logits, [FrameSpan(497, 47, 450)] * 8, PruneConfig(-5.5, 0.999, 0))
    assert whole.bytes_to_host == dense
    assert sparse.bytes_to_host < dense * 94 / 497 + dense / 20


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("seconds", [0.3, 20.0, 61.0])
def test_a_real_model_hears_sparsely_what_it_emits(random_lasr: Path, seconds: float, dtype: str) -> None:
    """Windows of all lengths, tails among them, in batches and behind masks."""
    model = CtcModel.load(Acoustic.model_validate({"model": str(random_lasr), "device": "cpu", "dtype": dtype}))
    waveform = np.rint(make_sound(seconds, 3) * 32_767).astype(np.int16)
    plan, pruning = plan_windows(len(waveform), model.grid, 20.0, 2.0), PruneConfig(-4.0, 0.5, 0)
    windows = [cut_window(waveform, window) for window in plan]
    heard = model.forward_windows(windows, find_exclusive_frames(plan, model.grid), pruning)
    assert_same(
        sparsify_stretches(fuse_in_stretches(heard, plan, model.grid), pruning),
        sparsify_stretches([fuse_windows(model.emit(windows), plan, model.grid)], pruning),
    )
