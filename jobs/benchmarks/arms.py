"""Ways to turn audio into tokens, in one process: transformers' pipeline, a plain loop, our acoustic stage, Whisper.

All get the same waveforms and weights. ``alternate`` runs them in turns, so that a machine that slows down slows all.
"""

from __future__ import annotations

import logging
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer, pipeline

from dictalake.acoustic.ctc import CtcModel
from dictalake.acoustic.device import choose_device
from dictalake.acoustic.windows import cut_window, plan_windows
from dictalake.config.sections import Config
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.records import SAMPLE_RATE_HZ, FrameGrid
from dictalake.workflow import columns
from dictalake.workflow.stages.emit import Emit

WINDOW_S, OVERLAP_S = 20.0, 2.0
BATCH = 8  # windows for the pipeline and the plain loop; ours has acoustic.batch_s = 160, which is as many


@dataclass(frozen=True)
class Arm:
    """``run`` processes all of the audio once."""

    name: str
    dtype: str
    run: Callable[[], Any]


def make_pipeline_arm(folder: Path, waveforms: Sequence[np.ndarray], dtype: str, device: str) -> Arm:
    """(a) transformers' pipeline for long audio; ``run`` gives the texts."""
    recognise = pipeline(
        "automatic-speech-recognition",
        model=AutoModelForCTC.from_pretrained(folder, dtype=getattr(torch, dtype)),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        feature_extractor=AutoFeatureExtractor.from_pretrained(folder),
        device=device,
    )

    def run() -> list[str]:
        audio = [{"raw": w.astype(np.float32) / 32768.0, "sampling_rate": SAMPLE_RATE_HZ} for w in waveforms]
        heard: Any = recognise(audio, chunk_length_s=WINDOW_S, stride_length_s=OVERLAP_S, batch_size=BATCH)  # type: ignore[arg-type]
        return [one["text"] for one in heard]

    return Arm("transformers pipeline", dtype, run)


def make_loop_arm(folder: Path, windows: Sequence[np.ndarray], dtype: str, device: str, grid: FrameGrid) -> Arm:
    """(b) Batches of windows through extractor, model and argmax; ``run`` gives a token id for each frame of each window."""
    model = AutoModelForCTC.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device).eval()
    extractor = AutoFeatureExtractor.from_pretrained(folder)

    @torch.inference_mode()
    def run() -> list[np.ndarray]:
        tokens: list[np.ndarray] = []
        for start in range(0, len(windows), BATCH):
            batch = [window.astype(np.float32) / 32768.0 for window in windows[start : start + BATCH]]
            inputs = extractor(
                batch, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt", padding=True, return_attention_mask=True
            )
            features, mask = inputs["input_features"].to(device, getattr(torch, dtype)), inputs["attention_mask"].to(device)
            ids = model(input_features=features, attention_mask=mask).logits.argmax(-1).cpu().numpy()
            tokens += [row[: grid.frames_of(len(window))] for row, window in zip(ids, batch, strict=True)]
        return tokens

    return Arm("plain loop", dtype, run)


def make_stage_arm(config: Config, vocabulary: Vocabulary, loaded: pa.Table, how: str = "") -> Arm:
    """(c) Our acoustic stage as a worker runs it: a block of waveforms in, a block of sparse emissions out."""
    stage = Emit(config, vocabulary, os.cpu_count() or 1)
    dtype = stage(loaded.slice(0, 1))["dtype"][0].as_py()
    return Arm(f"our acoustic stage{how}", dtype, lambda: stage(loaded))


def make_whisper_arm(waveforms: Sequence[np.ndarray], device: str) -> Arm | None:
    """(f) faster-whisper's tiny.en in batches, greedy; None if it is not installed."""
    try:
        from faster_whisper import BatchedInferencePipeline, WhisperModel

        from dictalake.acoustic.checkpoint import find_folder
        from dictalake.config.sections import Acoustic

        folder, _ = find_folder(Acoustic.model_validate({"kind": "whisper", "model": "packaged:tiny.en"}))
    except (ImportError, OSError):
        return None
    logging.getLogger("faster_whisper").setLevel(logging.ERROR)
    dtype = "float16" if device == "cuda" else "float32"
    model = WhisperModel(str(folder), device=device, compute_type=dtype, cpu_threads=os.cpu_count() or 1, local_files_only=True)
    batched = BatchedInferencePipeline(model=model)

    def run() -> list[str]:
        texts = []
        for waveform in waveforms:
            segments, _ = batched.transcribe(
                waveform.astype(np.float32) / 32768.0, language="en", batch_size=BATCH, beam_size=1, without_timestamps=True
            )
            texts.append("".join(segment.text for segment in segments))
        return texts

    return Arm("faster-whisper tiny.en", dtype, run)


def cut(waveforms: Sequence[np.ndarray], grid: FrameGrid) -> list[np.ndarray]:
    """The windows of our stage."""
    return [cut_window(w, window) for w in waveforms for window in plan_windows(len(w), grid, WINDOW_S, OVERLAP_S)]


def read_tokens(config: Config, windows: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The token ids that our model gives for each frame of each window."""
    return [log_probs.argmax(axis=1) for log_probs in CtcModel.load(config.acoustic).emit(windows)]


def measure_agreement(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """The share of frames with the same token, 0–1."""
    return float(np.mean(np.concatenate([a == b for a, b in zip(one, other, strict=True)])))


def alternate(arms: Mapping[str, Arm], rounds: int, tell: Callable[[str], None]) -> dict[str, list[float]]:
    """The seconds of each arm in each round, after a warm-up round. Every second round runs in reverse order."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(rounds + 1):
        for name in list(arms)[:: 1 if turn % 2 else -1]:
            started = time.perf_counter()
            arms[name].run()
            synchronise()
            if turn:
                seconds[name].append(time.perf_counter() - started)
        tell(f"round {turn} of {rounds}" if turn else "warmed up")
    return seconds


def synchronise() -> None:
    """Waits for the GPU, which still works after a call returns."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def as_ratio(values: Sequence[float], **what: Any) -> dict[str, Any]:
    """The median, minimum, maximum and number of runs."""
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "runs": len(values),
        **what,
    }


def list_waveforms(loaded: pa.Table) -> list[np.ndarray]:
    """The first channel of each recording, int16 ``(samples,)``."""
    return [columns.read_waveforms(loaded, index)[0] for index in range(loaded.num_rows)]


def pick_device() -> str:
    return choose_device("auto")
