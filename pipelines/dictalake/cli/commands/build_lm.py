"""Build the n-gram language model that beam search uses, over the pieces of one acoustic model.

    dictalake build-lm --text reports.csv --model google/medasr --out lm_6.kenlm
    dictalake build-lm --text train.txt more.csv --exclude held_out.csv --model medasr-mini/ --quantize --out lm_6.kenlm
    dictalake build-lm --text reports.csv --base general.arpa.gz --dev dev.csv --held-out test.csv --prune-threshold 1e-8 \\
        --model google/medasr --out lm_6.kenlm --arpa lm_6.arpa.gz --report lm_6.json

The text is in spoken form with the model's markup, one dictation a line (or a CSV column): "no acute fracture {period}".
decoding.lm takes the file. KenLM's tools come from PATH, or are built once from the source package on PyPI.

--base (ARPA, over the same pieces) or --base-text is mixed in: p = (1 - W) p_text + W p_base. --base-weight auto finds W on
--dev. Perplexity is measured on --held-out. Dictations that share a sentence with --dev are left out of it, and both are left
out of --text and --base-text; dictalake cannot know what a --base was made from.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dictalake.cli.options import CommandParser

AUTO = "auto"


def add_arguments(parser: CommandParser) -> None:
    parser.usage = f"{parser.prog} --text FILE... --model MODEL --out FILE [options]"
    parser.add_argument("--text", type=Path, nargs="+", required=True, help="text files (one dictation a line) or CSVs")
    parser.add_argument("--column", help="CSV column with the text (default: text, else reference)")
    parser.add_argument("--exclude", type=Path, nargs="+", default=[], help="text that must not be in the model")
    parser.add_argument("--base", type=Path, help="model to mix in: .arpa or .arpa.gz over the same pieces")
    parser.add_argument("--base-text", type=Path, nargs="+", default=[], help="text to build the model to mix in from")
    parser.add_argument("--base-weight", type=_weight, default=AUTO, metavar="W", help="its share: 0 to 1, or auto (default)")
    parser.add_argument("--dev", type=Path, nargs="+", default=[], help="text that --base-weight auto finds the share on")
    parser.add_argument(
        "--held-out", type=Path, nargs="+", default=[], help="text to measure perplexity on; kept out of the model"
    )
    parser.add_argument(
        "--prune-threshold", type=float, help="entropy pruning: drop n-grams that raise perplexity by less: 1e-8"
    )
    parser.add_argument("--model", required=True, help="the acoustic model, for its tokenizer: a folder or a Hugging Face id")
    parser.add_argument("--revision", help="revision of --model")
    parser.add_argument("--out", type=Path, required=True, help="KenLM binary to write")
    parser.add_argument("--arpa", type=Path, help="also write the ARPA file (.arpa or .arpa.gz), to be a --base later")
    parser.add_argument("--report", type=Path, help="also write sizes and perplexities as JSON")
    parser.add_argument("--order", type=int, default=6, help="length of the n-grams, 2 to 6 (default 6)")
    parser.add_argument("--prune", type=int, nargs="+", default=[], help="drop n-grams seen at most so often: 0 0 1")
    parser.add_argument("--quantize", action="store_true", help="8 bits for each probability")
    parser.add_argument("--memory", default="1G", help="memory for counting (default 1G)")
    parser.add_argument("--kenlm-bin", type=Path, help="folder of lmplz and build_binary")
    parser.add_argument("--cache", type=Path, help="where lmplz is built if it has to be (default ~/.cache/dictalake)")


def run(arguments: argparse.Namespace) -> int:
    from dictalake.cli.build_lm import build

    return build(arguments)


def _weight(given: str) -> float | str:
    if given == AUTO:
        return AUTO
    try:
        return float(given)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{given!r} is neither a number nor auto") from None
