"""Trains a CTC model on labelled audio: fine-tunes ``google/medasr`` (or any LASR checkpoint), or starts from nothing.

    dictalake finetune --manifest train.csv --held-out held_out.csv --base google/medasr --out checkpoint/ --peak-rate 1e-4
    dictalake finetune --manifest train.csv --held-out held_out.csv --from-scratch --out medasr-mini/

A manifest is a CSV with the columns ``uri`` (a local file, relative to the manifest; those longer than --max-utterance-s are
left out and counted) and ``reference``. The checkpoint folder is what
``acoustic.model`` takes. Killed, the same command goes on where the last saved state was.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import torch
from transformers import AutoProcessor, LasrCTCConfig, LasrEncoderConfig, LasrFeatureExtractor, LasrForCTC, LasrProcessor
from transformers.utils.logging import disable_progress_bar

from dictalake.acoustic.lasr.features import LogMel
from dictalake.errors import ConfigError
from dictalake.evaluation.normalise import normalise_medasr
from dictalake.evaluation.word_errors import count_errors
from dictalake.training.finetune import Trainer, TrainingPlan, initialise
from dictalake.training.lm import read_dictations
from dictalake.training.tokenizer import build_tokenizer
from dictalake.training.utterances import TrainingUtterance, load_waveform, read_utterances
from dictalake.training.voices import VOICES


def main(argv: list[str] | None = None) -> int:
    arguments = _parse(argv)
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


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dictalake finetune", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--manifest", type=Path, required=True, action="append", help="CSV of the training audio: uri, reference; repeatable"
    )
    parser.add_argument("--held-out", type=Path, required=True, help="CSV of audio for the error rate after each epoch")
    parser.add_argument("--held-out-limit", type=int, default=300, help="at most so many held-out utterances (default 300)")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder; holds the state to resume from too")
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--base", help="checkpoint to start from: a folder or a Hugging Face id")
    start.add_argument("--from-scratch", action="store_true", help="build a tokenizer and a small model instead")
    parser.add_argument("--revision", help="revision of --base")
    parser.add_argument(
        "--tokenizer-text",
        type=Path,
        action="append",
        default=[],
        help="from scratch: CSV or text file to learn the vocabulary from, repeatable (default: the training references)",
    )
    parser.add_argument("--pieces", type=int, default=320, help="from scratch: vocabulary size")
    parser.add_argument("--hidden-size", type=int, default=144)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    for field in fields(TrainingPlan):
        name = "--" + field.name.replace("_", "-")
        if isinstance(field.default, bool):
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=field.default)
        else:
            parser.add_argument(name, type=type(field.default), default=field.default, help=f"default {field.default}")
    return parser.parse_args(argv)


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
