"""Train a CTC model on labelled audio: fine-tune google/medasr (or any LASR checkpoint), or start from nothing.

    dictalake finetune --manifest train.csv --held-out held_out.csv --base google/medasr --out checkpoint/ --peak-rate 1e-4
    dictalake finetune --manifest train.csv --held-out held_out.csv --from-scratch --out medasr-mini/

A manifest is a CSV with the columns `uri` (a local file, relative to the manifest) and `reference`. Utterances longer than
--max-utterance-s are left out and counted. acoustic.model takes the checkpoint folder. If training is killed, run the same
command again to resume from the last saved state.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from dictalake.cli.options import CommandParser
from dictalake.training.plan import TrainingPlan


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} --manifest FILE --held-out FILE --out FOLDER (--base MODEL | --from-scratch) [options]"
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


def run(arguments: argparse.Namespace) -> int:
    from dictalake.cli.finetune import finetune

    return finetune(arguments)
