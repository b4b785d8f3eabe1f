"""Trains a LASR CTC model on labelled audio, from a checkpoint (``google/medasr``) or from random weights.

The loop is plain PyTorch: batches by audio seconds, SpecAugment, AdamW, and an exponential moving average of the weights.
The learning rate has a warm-up, a constant part and a linear decay at the end, so a run can be prolonged or ended early.
``<out>/state.pt`` holds everything needed to resume after a kill, and is replaced atomically.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import LasrFeatureExtractor, LasrForCTC, LasrProcessor, LasrTokenizer

from dictalake.acoustic.ctc import choose_dtype
from dictalake.acoustic.lasr.features import LogMel
from dictalake.training.augment import SAMPLE_RATE_HZ, augment
from dictalake.training.plan import TrainingPlan as TrainingPlan
from dictalake.training.utterances import TrainingUtterance, load_waveform, make_batches
from dictalake.training.vocal_tract import draw_warps, warp_spectrum

FRAME_SAMPLES = 640


def initialise(model: LasrForCTC, features: torch.Tensor) -> None:
    """Gives a new, small model its first weights: Xavier's, and an input layer that centres and scales ``features``.

    ``features`` are log-mel frames ``(frames, mel_bands)`` of some training audio; LASR takes them unscaled (about −6 ± 4).
    transformers' normal(0, 0.02) is for wider models: with it a narrow one hardly learns in its first thousand steps.
    """
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
    mean, deviation = features.mean(0), features.std(0).clamp(min=0.5)
    entry = model.encoder.subsampler.dense_0
    with torch.no_grad():
        nn.init.normal_(entry.weight, std=entry.in_features**-0.5)
        entry.weight.div_(deviation)
        entry.bias.copy_(-(entry.weight @ mean))


def even_alignment(
    waveforms: Sequence[np.ndarray], labels: Sequence[Sequence[int]], piece_lengths: Sequence[int], frames: int
) -> torch.Tensor:
    """The piece that each encoder frame would have if every character took equally long: ``(utterances, frames)``.

    It is −1 before the first sound, after the last one and in the padding. Frames are 40 ms.
    """
    aligned = torch.full((len(waveforms), frames), -1)
    for row, (waveform, label) in enumerate(zip(waveforms, labels, strict=True)):
        peaks = np.abs(waveform[: len(waveform) // FRAME_SAMPLES * FRAME_SAMPLES]).reshape(-1, FRAME_SAMPLES).max(1)
        sounding = np.flatnonzero(peaks > 0.02 * peaks.max())[:frames]
        if not len(sounding) or not len(label):
            continue
        start, end = int(sounding[0]), min(int(sounding[-1]) + 1, frames)
        ends = np.cumsum([piece_lengths[piece] for piece in label])
        places = (np.arange(start, end) - start + 0.5) / (end - start) * ends[-1]
        aligned[row, start:end] = torch.tensor(label)[np.searchsorted(ends, places, side="right")]
    return aligned


class Trainer:
    """Holds the model and its training state. ``train`` may be killed and called again."""

    def __init__(
        self,
        model: LasrForCTC,
        tokenizer: LasrTokenizer,
        extractor: LasrFeatureExtractor,
        out: Path,
        plan: TrainingPlan,
        device: str = "cpu",
    ) -> None:
        self.model, self.tokenizer, self.extractor, self.out, self.plan = model, tokenizer, extractor, out, plan
        self.device = torch.device(device)
        torch.nn.Module.to(model, self.device)
        if self.device.type == "cpu":  # a seventh faster than PyTorch's fused kernel for windows and heads this small
            model.set_attn_implementation("eager")
        self.features = LogMel(extractor).to(device)
        self.averaged = deepcopy(model).eval().requires_grad_(False)
        decayed = [p for p in model.parameters() if p.ndim > 1]
        plain = [p for p in model.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=plan.peak_rate, betas=(0.9, 0.98))
        self.step = self.epoch = self.batch_in_epoch = 0
        self.history: list[dict[str, float]] = []
        self._blank = model.config.pad_token_id
        pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        self._piece_lengths = [max(1, len(piece.lstrip("▁"))) for piece in pieces]
        self._bf16 = plan.bf16 and choose_dtype("auto", self.device.type) == "bfloat16"
        self._middle: list[torch.Tensor] = []
        middle_layer = model.encoder.layers[len(model.encoder.layers) // 2 - 1]
        middle_layer.register_forward_hook(lambda _module, _inputs, output: self._middle.append(output))

    # -- state ------------------------------------------------------------------------------------------------------

    def resume(self) -> bool:
        """Resumes from ``state.pt`` if there is one."""
        path = self.out / "state.pt"
        if not path.exists():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.epoch, self.batch_in_epoch = state["step"], state["epoch"], state["batch_in_epoch"]
        self.history = state["history"]
        return True

    def save_state(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "epoch": self.epoch,
            "batch_in_epoch": self.batch_in_epoch,
            "history": self.history,
        }
        partial = self.out / "state.pt.part"
        torch.save(state, partial)
        os.replace(partial, self.out / "state.pt")

    def save_model(self) -> None:
        """Writes the averaged model with its processor as a folder that ``from_pretrained`` and dictalake read."""
        self.averaged.save_pretrained(self.out, safe_serialization=True)
        LasrProcessor(self.extractor, self.tokenizer).save_pretrained(self.out)
        (self.out / "training.json").write_text(json.dumps({"plan": asdict(self.plan), "epochs": self.history}, indent=1))

    @property
    def _is_easy(self) -> bool:
        return self.epoch < self.plan.sorted_epochs

    # -- training ---------------------------------------------------------------------------------------------------

    def train(
        self,
        utterances: Sequence[TrainingUtterance],
        evaluate: Callable[[LasrForCTC], dict[str, float]],
        report: Callable[[str], None],
    ) -> None:
        """Trains until ``plan.steps``. After each epoch it calls ``evaluate`` with the averaged model, and saves."""
        labels = [self.tokenizer(u.reference, add_special_tokens=False).input_ids for u in utterances]
        self.out.mkdir(parents=True, exist_ok=True)
        last_save = last_report = time.monotonic()
        losses: list[float] = []
        audio_s = 0.0
        while self.step < self.plan.steps:
            rng = random.Random(self.plan.seed * 1000 + self.epoch)
            batches = make_batches(utterances, self.plan.batch_s, rng, ascending=self._is_easy)
            for batch, waveforms in self._prefetch(utterances, batches[self.batch_in_epoch :]):
                losses.append(self._train_batch(waveforms, [labels[i] for i in batch]))
                audio_s += sum(len(w) for w in waveforms) / SAMPLE_RATE_HZ
                self.step += 1
                self.batch_in_epoch += 1
                now = time.monotonic()
                if now - last_report > 60:
                    rate = self.plan.rate(self.step)
                    left_s = (self.plan.steps - self.step) * (now - last_report) / max(1, len(losses))
                    report(
                        f"epoch {self.epoch + 1} step {self.step}/{self.plan.steps} loss {np.mean(losses):.3f} rate {rate:.2e} "
                        f"{audio_s / (now - last_report):.0f}x real time, {left_s / 60:.0f} min left"
                    )
                    last_report, losses, audio_s = now, [], 0.0
                if now - last_save > self.plan.save_every_s:
                    self.save_state()
                    last_save = now
                if self.step >= self.plan.steps:
                    break
            else:
                self.epoch, self.batch_in_epoch = self.epoch + 1, 0
            scores = {"epoch": float(self.epoch), "step": float(self.step), **evaluate(self.averaged)}
            self.history.append(scores)
            report("epoch done: " + " ".join(f"{key} {value:.4g}" for key, value in scores.items()))
            self.save_state()
            self.save_model()
            last_save = time.monotonic()

    def _prefetch(
        self, utterances: Sequence[TrainingUtterance], batches: list[list[int]]
    ) -> Iterator[tuple[list[int], list[np.ndarray]]]:
        """Reads and augments the next batch while this one trains."""
        first = self.batch_in_epoch

        def prepare(number: int) -> list[np.ndarray]:
            rng = np.random.default_rng([self.plan.seed, self.epoch, first + number])
            waves = [load_waveform(utterances[i].path) for i in batches[number]]
            # The first epochs are clean and go from short to long: a new CTC model then finds the alignment much sooner.
            share = 0.0 if self._is_easy else self.plan.augment_share
            return [augment(w, rng) if rng.random() < share else w for w in waves]

        with ThreadPoolExecutor(1) as pool:
            upcoming = pool.submit(prepare, 0) if batches else None
            for number, batch in enumerate(batches):
                assert upcoming is not None
                waveforms = upcoming.result()
                upcoming = pool.submit(prepare, number + 1) if number + 1 < len(batches) else None
                yield batch, waveforms

    def _train_batch(self, waveforms: list[np.ndarray], labels: list[list[int]]) -> float:
        rate = self.plan.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        self._middle.clear()
        logp, lengths = self._log_probabilities(self.model, waveforms, perturb=True)
        targets = torch.tensor([token for label in labels for token in label], device=self.device)
        target_lengths = torch.tensor([len(label) for label in labels], device=self.device)

        def loss_of(log_probabilities: torch.Tensor) -> torch.Tensor:
            losses = nn.functional.ctc_loss(
                log_probabilities.transpose(0, 1),
                targets,
                lengths,
                target_lengths,
                blank=self._blank,
                reduction="none",
                zero_infinity=True,
            )
            return losses.sum() / target_lengths.sum()

        final = loss = loss_of(logp)
        if self.plan.intermediate:
            with self._autocast():
                logits = self.model.ctc_head(self.model.encoder.out_norm(self._middle[-1]))
            middle = loss_of(logits.float().log_softmax(-1))
            loss = (1 - self.plan.intermediate) * final + self.plan.intermediate * middle
        if self.step < self.plan.flat_start_steps:
            weight = 1 - self.step / self.plan.flat_start_steps
            aligned = even_alignment(waveforms, labels, self._piece_lengths, logp.shape[1]).to(self.device)
            flat = nn.functional.nll_loss(logp.transpose(1, 2), aligned, ignore_index=-1)
            loss = (1 - weight) * loss + weight * flat
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip_norm)
        if torch.isfinite(norm):
            self.optimizer.step()
            self._update_average()
        return float(final.detach())

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)

    def _log_probabilities(
        self, model: LasrForCTC, waveforms: list[np.ndarray], *, perturb: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        samples = torch.tensor([len(w) for w in waveforms])
        padded = torch.zeros(len(waveforms), int(samples.max()))
        for row, waveform in enumerate(waveforms):
            padded[row, : len(waveform)] = torch.from_numpy(waveform)
        with torch.no_grad():
            power = self.features.power(padded.to(self.device))
            if perturb and self.plan.vocal_tract_warp:
                rng = np.random.default_rng([self.plan.seed, self.step, 1])
                power = warp_spectrum(power, draw_warps(len(waveforms), self.plan.vocal_tract_warp, rng))
            features = self.features.log_mel(power)
            if perturb and not self._is_easy:
                self._mask_features(features)
        frames = self.features.frame_count(samples).to(self.device)
        attention_mask = torch.arange(features.shape[1], device=self.device) < frames[:, None]
        with self._autocast():
            logits = model(input_features=features, attention_mask=attention_mask).logits
        return logits.float().log_softmax(-1), model._get_subsampling_output_length(frames)

    def _mask_features(self, features: torch.Tensor) -> None:
        """Applies SpecAugment in place: sets bands and stretches of time to the batch's mean (Park et al. 2019)."""
        rng = np.random.default_rng([self.plan.seed, self.step])
        fill = float(features.mean())
        _, frames, bands = features.shape
        for row in features:
            for _ in range(self.plan.mel_masks):
                width = int(rng.integers(0, self.plan.mel_mask_bands + 1))
                start = int(rng.integers(0, bands - width + 1))
                row[:, start : start + width] = fill
            for _ in range(int(frames / 100 * self.plan.time_masks_per_s) + 1):
                width = int(rng.integers(0, min(self.plan.time_mask_frames, frames // 4) + 1))
                start = int(rng.integers(0, frames - width + 1))
                row[start : start + width] = fill

    @torch.no_grad()
    def _update_average(self) -> None:
        keep = min(self.plan.average, (1 + self.step) / (10 + self.step))
        current = self.model.state_dict()
        for name, value in self.averaged.state_dict().items():
            if value.is_floating_point():
                value.lerp_(current[name], 1 - keep)
            else:
                value.copy_(current[name])

    @torch.no_grad()
    def transcribe(self, model: LasrForCTC, utterances: Sequence[TrainingUtterance], batch_s: float = 120.0) -> list[str]:
        """The greedy texts of ``utterances`` in order."""
        model.eval()
        texts = [""] * len(utterances)
        for batch in make_batches(utterances, batch_s, random.Random(0), ascending=True):
            logp, lengths = self._log_probabilities(model, [load_waveform(utterances[i].path) for i in batch], perturb=False)
            tokens = logp.argmax(-1).cpu()
            for row, index in enumerate(batch):
                texts[index] = str(self.tokenizer.decode(tokens[row, : int(lengths[row])].tolist(), skip_special_tokens=True))
        return texts
