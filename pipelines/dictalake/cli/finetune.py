"""Trains or fine-tunes a CTC model on labelled audio, and measures it on held-out audio after each epoch."""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import fields, replace

import torch
from transformers import AutoProcessor, LasrCTCConfig, LasrEncoderConfig, LasrFeatureExtractor, LasrForCTC, LasrProcessor
from transformers.utils.logging import disable_progress_bar

from dictalake.acoustic.lasr.features import LogMel
from dictalake.errors import ConfigError
from dictalake.evaluation.normalise import normalise_medasr
from dictalake.evaluation.word_errors import count_errors
from dictalake.training.finetune import Trainer, initialise
from dictalake.training.lm import read_dictations
from dictalake.training.plan import TrainingPlan
from dictalake.training.tokenizer import build_tokenizer
from dictalake.training.utterances import TrainingUtterance, load_waveform, read_utterances
from dictalake.training.voices import VOICES


def finetune(arguments: argparse.Namespace) -> int:
    """Reads the audio, trains, and saves the model into the folder ``arguments.out``."""
    torch.manual_seed(arguments.seed)
    disable_progress_bar()  # a checkpoint is written after each epoch
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    plan = TrainingPlan(**{f.name: getattr(arguments, f.name) for f in fields(TrainingPlan) if hasattr(arguments, f.name)})
    train = [u for manifest in arguments.manifest for u in read_utterances(manifest, plan.max_utterance_s, _say)]
    if kept_out := sorted({u.voice for u in train} & {voice.name for voice in VOICES if voice.held_out}):
        raise ConfigError(f"--manifest: the voices {', '.join(kept_out)} are for evaluation; a model may not train on them")
    held_out = read_utterances(arguments.held_out, plan.max_utterance_s, _say)
    held_out = random.Random(0).sample(held_out, min(arguments.held_out_limit, len(held_out)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trainer = _make_trainer(arguments, plan, train, device)
    resumed = trainer.resume()
    if resumed:
        trainer.plan = replace(plan)
    _say(
        f"{'resuming at step ' + str(trainer.step) if resumed else 'starting'}: {len(train)} utterances, "
        f"{sum(u.duration_s for u in train) / 3600:.1f} h, held out {len(held_out)}, on {device}, "
        f"{sum(p.numel() for p in trainer.model.parameters()) / 1e6:.1f} M parameters"
    )

    def evaluate(model: LasrForCTC) -> dict[str, float]:
        hypotheses = trainer.transcribe(model, held_out)
        pairs = [(normalise_medasr(u.reference), normalise_medasr(h)) for u, h in zip(held_out, hypotheses, strict=True)]
        return {"held_out_wer": count_errors(pairs).rate}

    trainer.train(train, evaluate, _say)
    trainer.save_model()
    return 0


def _make_trainer(arguments: argparse.Namespace, plan: TrainingPlan, train: list[TrainingUtterance], device: str) -> Trainer:
    if arguments.from_scratch:
        if (arguments.out / "tokenizer.json").exists():
            tokenizer = AutoProcessor.from_pretrained(arguments.out).tokenizer
        else:
            texts = [text for path in arguments.tokenizer_text for text in read_dictations(path)]
            tokenizer = build_tokenizer(texts or [u.reference for u in train], arguments.pieces)
            arguments.out.mkdir(parents=True, exist_ok=True)
            LasrProcessor(LasrFeatureExtractor(), tokenizer).save_pretrained(arguments.out)
        encoder = LasrEncoderConfig(
            hidden_size=arguments.hidden_size,
            num_hidden_layers=arguments.layers,
            num_attention_heads=arguments.heads,
            intermediate_size=4 * arguments.hidden_size,
            subsampling_conv_channels=arguments.hidden_size,
            dropout=0.0,
            layerdrop=0.0,
            activation_dropout=0.0,
            attention_dropout=0.0,
        )
        model = LasrForCTC(LasrCTCConfig(vocab_size=len(tokenizer), pad_token_id=0, encoder_config=encoder))
        extractor = LasrFeatureExtractor()
        sample = random.Random(0).sample(train, min(200, len(train)))
        log_mel = LogMel(extractor)
        initialise(model, torch.cat([log_mel(torch.from_numpy(load_waveform(u.path))[None])[0] for u in sample]))
        return Trainer(model, tokenizer, extractor, arguments.out, plan, device)
    processor = AutoProcessor.from_pretrained(arguments.base, revision=arguments.revision)
    model = LasrForCTC.from_pretrained(arguments.base, revision=arguments.revision, dtype=torch.float32)
    return Trainer(model, processor.tokenizer, processor.feature_extractor, arguments.out, plan, device)


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
