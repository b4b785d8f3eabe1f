"""Measures where the time goes: each stage on the same block in one process, without Ray, and the parts of ``emit``.

It also makes the archive and the models that the arms share.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
import torch
from pyctcdecode.decoder import build_ctcdecoder
from transformers import AutoTokenizer, LasrCTCConfig, LasrEncoderConfig

from dictalake.acoustic.checkpoint import find_checkpoint, locate_lm
from dictalake.acoustic.ctc import CtcModel
from dictalake.acoustic.fusion import find_exclusive_frames, fuse_in_stretches, fuse_windows
from dictalake.acoustic.sparse import sparsify_stretches
from dictalake.acoustic.sparse_on_device import DeviceSparsifier, FrameSpan
from dictalake.acoustic.window_output import PruneConfig, Stretch, WindowOutput
from dictalake.acoustic.windows import cut_window, plan_windows
from dictalake.archive.listing import list_recordings
from dictalake.config.locations import ASSETS
from dictalake.config.sections import Config
from dictalake.decoding.base import open_decoder
from dictalake.records import SAMPLE_RATE_HZ, Emissions
from dictalake.training.untrained import save_untrained_lasr
from dictalake.workflow.columns import read_emissions, recordings_to_table
from dictalake.workflow.identity import identify, read_vocabulary
from dictalake.workflow.stages.assemble import Assemble
from dictalake.workflow.stages.decode import Decode
from dictalake.workflow.stages.emit import Emit
from dictalake.workflow.stages.load import Load
from jobs.benchmarks.arms import cut, list_waveforms, synchronise
from jobs.benchmarks.load import read_demo_speech

EACH_S = 90.0
MINI = ASSETS / "medasr-mini"


def write_archive(folder: Path, seconds: float) -> float:
    """Writes different recordings of 90 s from the demo archive's speech, at least ``seconds`` in all; returns the seconds."""
    folder.mkdir(parents=True)
    speech, size = read_demo_speech(), int(EACH_S * SAMPLE_RATE_HZ)
    count = max(1, -(-int(seconds) // int(EACH_S)))
    for number in range(count):
        piece = np.resize(np.roll(speech, -number * (size // 7)), size)
        soundfile.write(folder / f"{number:05}.wav", piece, SAMPLE_RATE_HZ, subtype="PCM_16")
    return count * EACH_S


def make_model(name: str, folder: Path) -> Path:
    """``mini`` is the embedded model; ``full`` has MedASR's dimensions, random weights, and mini's pieces for its LM."""
    if name == "mini":
        return MINI
    tokenizer, mini = AutoTokenizer.from_pretrained(MINI), LasrCTCConfig.from_pretrained(MINI)
    save_untrained_lasr(folder, LasrEncoderConfig(), tokenizer, mini.vocab_size)
    shutil.copy(MINI / "lm_6.kenlm", folder)
    return folder


def make_config(model: Path, archive: Path, lake: Path, **acoustic: Any) -> Config:
    """A configuration that decodes like ``conf/medasr.yaml``: beam 8 with the 6-gram model."""
    return Config.model_validate(
        {
            "archive": {"uri": str(archive)},
            "lake": {"uri": str(lake)},
            "acoustic": {"model": str(model), **acoustic},
            "decoding": {"lm": str(MINI / "lm_6.kenlm")},
        }
    )


def load_block(config: Config) -> pa.Table:
    """All recordings of the archive, loaded by the real stage."""
    recordings = recordings_to_table(list(list_recordings(config.archive)))
    return pa.concat_tables(list(Load(config)(recordings)))


def measure_stages(config: Config, rounds: int) -> dict[str, Any]:
    """For each stage the least seconds of ``rounds``, its share, processor seconds a second, and bytes per second of audio."""
    checkpoint = find_checkpoint(config.acoustic)
    vocabulary, grid = read_vocabulary(checkpoint)
    recordings = recordings_to_table(list(list_recordings(config.archive)))
    load, emit = Load(config), Emit(config, vocabulary, os.cpu_count() or 1)
    greedy = config.model_copy(update={"decoding": config.decoding.model_copy(update={"kind": "greedy"})})
    decode, decode_greedy = Decode(config, vocabulary), Decode(greedy, vocabulary)
    finish = Assemble(config, identify(config, checkpoint), grid)
    made: dict[str, pa.Table] = {}
    steps: dict[str, Callable[[], pa.Table]] = {
        "load": lambda: pa.concat_tables(list(load(recordings))),
        "emit": lambda: emit(made["load"]),
        "decode": lambda: decode(made["emit"]),
        "decode, greedy": lambda: decode_greedy(made["emit"]),
        "write": lambda: finish(made["decode"]),
    }
    best: dict[str, dict[str, Any]] = {}
    for _ in range(rounds + 1):  # the first one warms up and is the slowest
        for name, step in steps.items():
            wall, busy = time.perf_counter(), time.process_time()
            made[name] = step()
            synchronise()
            taken, used = time.perf_counter() - wall, time.process_time() - busy
            if name not in best or taken < best[name]["seconds"]:
                best[name] = {"seconds": taken, "cpus_busy": used / taken}
    audio_s = float(sum(made["load"]["duration_s"].to_pylist()))
    total_s = sum(one["seconds"] for name, one in best.items() if name != "decode, greedy")
    for name, one in best.items():
        one["s_per_audio_s"] = one["seconds"] / audio_s
        one["share"] = one["seconds"] / total_s
        one["bytes_out_per_audio_s"] = made[name].nbytes / audio_s
    if torch.cuda.is_available():
        best["emit"]["gpu_busy"] = measure_gpu_busy(steps["emit"])
    best["load"]["note"] = "decodes in child processes: their time is not in cpus_busy"
    return {"audio_s": audio_s, "stages": best, "inside_emit": measure_emit(config, made["load"], rounds)}


def measure_gpu_busy(step: Callable[[], pa.Table]) -> float:
    """The share of ``step``'s time in which kernels and copies ran on the GPU; they do not overlap in one stream. Without the
    profiler it would be a little higher."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities, acc_events=True) as profiled:
        started = time.perf_counter()
        step()
        synchronise()
        taken = time.perf_counter() - started
    events = [event for event in profiled.key_averages() if event.device_type.name == "CUDA" and not event.is_user_annotation]
    return sum(event.self_device_time_total for event in events) / 1e6 / taken


@torch.inference_mode()
def measure_emit(config: Config, loaded: pa.Table, rounds: int) -> dict[str, float]:
    """The parts of ``emit`` in seconds per second of audio: the features, the encoder with its head, the selection of tokens
    with their way to the host, and the fusion and compaction there; also the bytes that go to the host."""
    model, waveforms = CtcModel.load(config.acoustic), list_waveforms(loaded)
    audio_s = sum(map(len, waveforms)) / SAMPLE_RATE_HZ
    windows = cut(waveforms, model.grid)
    plans = [plan_windows(len(w), model.grid, config.windows.length_s, config.windows.overlap_s) for w in waveforms]
    spans = model.frame_spans(windows, [frames for plan in plans for frames in find_exclusive_frames(plan, model.grid)])
    pruning = PruneConfig.below(config.decoding, blank_id=0)
    least: dict[str, float] = {}
    for _ in range(rounds + 1):
        took, heard = _time_parts(model, windows, spans, pruning)
        said = iter(heard)
        started = time.perf_counter()
        for plan in plans:
            sparsify_stretches(fuse_in_stretches(islice(said, len(plan)), plan, model.grid), pruning)
        took["fuse_s"] = time.perf_counter() - started
        least = {name: min(least.get(name, value), value) for name, value in took.items()}
    return {f"{name}_per_audio_s": value / audio_s for name, value in least.items()}


def _time_parts(
    model: CtcModel, windows: list[np.ndarray], spans: list[FrameSpan], pruning: PruneConfig
) -> tuple[dict[str, float], list[WindowOutput[Stretch]]]:
    took = dict.fromkeys(("features_s", "encoder_s", "select_s", "bytes_to_host"), 0.0)
    heard: dict[int, WindowOutput[Stretch]] = {}
    for length, indices in model.batches([len(window) for window in windows]):
        begun = time.perf_counter()
        inputs = model.to_inputs([windows[index] for index in indices], length)
        synchronise()
        featured = time.perf_counter()
        logits = model.to_logits(inputs)
        synchronise()
        encoded = time.perf_counter()
        selection = DeviceSparsifier(logits, [spans[index] for index in indices], pruning)
        heard.update(zip(indices, selection.read(), strict=True))
        took["features_s"] += featured - begun
        took["encoder_s"] += encoded - featured
        took["select_s"] += time.perf_counter() - encoded
        took["bytes_to_host"] += selection.bytes_to_host
    return took, [heard[index] for index in range(len(windows))]


def measure_decoders(config: Config, loaded: pa.Table, emitted: pa.Table, rounds: int) -> dict[str, Any]:
    """Our decoder, from sparse emissions to hypotheses, against plain pyctcdecode, in turns on one core. pyctcdecode gets the
    same emissions as dense matrices, where a run of sure blanks is one frame, and all frames of the model."""
    vocabulary, grid = read_vocabulary(find_checkpoint(config.acoustic))
    decoding = locate_lm(config).decoding
    ours = open_decoder(decoding, vocabulary)
    labels, words = vocabulary.pyctcdecode_labels(), vocabulary.lm_words()
    theirs = build_ctcdecoder(labels, decoding.lm, unigrams=words.values(), alpha=decoding.lm_weight, beta=decoding.word_score)
    channels: list[Emissions] = [c for index in range(emitted.num_rows) for c in read_emissions(emitted, index)]
    matrices = [channel.dense() for channel in channels]
    model, all_frames = CtcModel.load(config.acoustic), []
    for waveform in list_waveforms(loaded):
        plan = plan_windows(len(waveform), grid, config.windows.length_s, config.windows.overlap_s)
        all_frames.append(fuse_windows(model.emit([cut_window(waveform, window) for window in plan]), plan, grid))
    limits: dict[str, Any] = {
        "beam_width": decoding.beam_width,
        "beam_prune_logp": decoding.beam_prune_logp,
        "token_min_logp": decoding.token_min_logp,
    }
    steps: dict[str, Callable[[], list[str]]] = {
        "ours": lambda: [" ".join(words[p.token_id] for p in ours.decode(channel, 1)[0].pieces) for channel in channels],
        "pyctcdecode": lambda: [theirs.decode_beams(matrix, **limits)[0][0] for matrix in matrices],
        "pyctcdecode, all frames": lambda: [theirs.decode_beams(matrix, **limits)[0][0] for matrix in all_frames],
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    said: dict[str, list[str]] = {}
    for turn in range(rounds + 1):
        for name in list(steps)[:: 1 if turn % 2 else -1]:
            started = time.perf_counter()
            said[name] = steps[name]()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    other = [name for name in steps if name != "ours"]
    same = {name: sum(mine == their for mine, their in zip(said["ours"], said[name], strict=True)) for name in other}
    ratios = {
        name: [theirs_s / mine_s for theirs_s, mine_s in zip(seconds[name], seconds["ours"], strict=True)] for name in other
    }
    return {
        "engine": ours.name,
        "audio_s": sum(one.frames for one in channels) * grid.step / SAMPLE_RATE_HZ,
        "seconds": seconds,
        "channels": len(channels),
        "channels_with_the_same_pieces": same,
        "ratios": ratios,
    }
