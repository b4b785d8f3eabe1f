"""The hyperparameters of training, in a module that imports fast, so that a command line can show them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingPlan:
    """How to train. ``steps`` is the whole length; the last ``decay_share`` of it lowers the rate to zero.

    ``intermediate`` is the weight of a second CTC loss on the middle layer (Lee and Watanabe 2021), with which the alignment
    is found much sooner; 0 turns it off. ``augment_share`` is the share of utterances that ``augment`` changes.
    ``flat_start_steps`` is for a model from random weights. For that many steps, with falling weight, it also learns where
    each piece would lie if speech ran evenly from the first sound to the last. This is nearly true of short utterances (the
    flat start of hidden Markov models). Without it, CTC can predict only blanks and the frequencies of pieces for thousands
    of steps.
    ``vocal_tract_warp`` of 0.2 multiplies the frequencies of each utterance by a factor between 1 / 1.2 and 1.2, so that few
    voices sound like many; 0 turns it off.
    """

    steps: int = 3000
    batch_s: float = 120.0
    peak_rate: float = 1.5e-3
    warmup_steps: int = 400
    decay_share: float = 0.3
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    average: float = 0.998
    intermediate: float = 0.3
    flat_start_steps: int = 0
    max_utterance_s: float = 20.0
    sorted_epochs: int = 1
    bf16: bool = True
    augment_share: float = 0.6
    vocal_tract_warp: float = 0.0
    mel_masks: int = 2
    mel_mask_bands: int = 27
    time_masks_per_s: float = 0.25
    time_mask_frames: int = 25
    save_every_s: float = 300.0
    seed: int = 0

    def rate(self, step: int) -> float:
        """Learning rate at ``step``."""
        decay_steps = max(1, int(self.steps * self.decay_share))
        return self.peak_rate * max(0.0, min(1.0, (step + 1) / self.warmup_steps, (self.steps - step) / decay_steps))
