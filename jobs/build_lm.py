"""Builds the n-gram language model that beam search fuses, over the pieces of one acoustic model.

    dictalake build-lm --text reports.csv --model google/medasr --out lm_6.kenlm
    dictalake build-lm --text train.txt more.csv --exclude held_out.csv --model medasr-mini/ --quantize --out lm_6.kenlm

Text is spoken form with the model's markup, one dictation a line (or a CSV column): "no acute fracture {period}".
The file goes into ``decoding.lm``. KenLM's tools are taken from PATH, or built once from the source package on PyPI.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer

from pipelines.config import resolve
from pipelines.decoding.vocabulary import Vocabulary
from pipelines.errors import ConfigError, RunError
from pipelines.training.kenlm_tools import default_cache, find_or_build_tools
from pipelines.training.lm import HeldOut, LmPlan, build_lm, read_dictations, write_pieces


def main(argv: list[str] | None = None) -> int:
    arguments = _parse(argv)
    try:
        return _build(arguments)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except RunError as error:
        print(error, file=sys.stderr)
        return 1


def _build(arguments: argparse.Namespace) -> int:
    plan = LmPlan(arguments.order, tuple(arguments.prune), arguments.quantize, arguments.memory)
    held_out = HeldOut(itertools.chain.from_iterable(read_dictations(path, arguments.column) for path in arguments.exclude))
    tools = find_or_build_tools(arguments.kenlm_bin, arguments.cache or default_cache(), print)
    model = resolve(arguments.model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, revision=arguments.revision)
        vocabulary_size = _vocabulary_size(model, arguments.revision) or len(tokenizer)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--model {arguments.model}: no tokenizer can be loaded from there ({type(error).__name__})"
        ) from error
    vocabulary = Vocabulary.from_tokenizer(tokenizer, vocabulary_size)
    with tempfile.TemporaryDirectory(prefix="dictalake-lm-") as folder:
        corpus = Path(folder) / "pieces.txt"
        dictations = itertools.chain.from_iterable(read_dictations(path, arguments.column) for path in arguments.text)
        counts = write_pieces(dictations, tokenizer, vocabulary, held_out, corpus)
        print(
            f"corpus: {counts.dictations} dictations, {counts.pieces} pieces ({counts.unknown_pieces} without a piece left out)"
        )
        if arguments.exclude:
            print(f"held out: {counts.excluded_dictations} dictations and {counts.excluded_sentences} sentences left out")
        build_lm(corpus, arguments.out, plan, tools)
    print(f"{arguments.out}: {plan.order}-gram, {arguments.out.stat().st_size / 1e6:.2f} MB")
    return 0


def _vocabulary_size(model: str, revision: str | None) -> int | None:
    """Width of the model's CTC head; None for a folder with a tokenizer alone."""
    if Path(model).is_dir() and not (Path(model) / "config.json").exists():
        return None
    size = AutoConfig.from_pretrained(model, revision=revision).vocab_size
    return int(size) if size else None


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dictalake build-lm", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--text", type=Path, nargs="+", required=True, help="text files (one dictation a line) or CSVs")
    parser.add_argument("--column", help="CSV column with the text (default: text, else reference)")
    parser.add_argument("--exclude", type=Path, nargs="+", default=[], help="held-out text that must not be in the model")
    parser.add_argument("--model", required=True, help="the acoustic model, for its tokenizer: a folder or a Hugging Face id")
    parser.add_argument("--revision", help="revision of --model")
    parser.add_argument("--out", type=Path, required=True, help="KenLM binary to write")
    parser.add_argument("--order", type=int, default=6, help="length of the n-grams, 2 to 6 (default 6)")
    parser.add_argument("--prune", type=int, nargs="+", default=[], help="drop n-grams seen at most so often: 0 0 1")
    parser.add_argument("--quantize", action="store_true", help="8 bits for each probability")
    parser.add_argument("--memory", default="1G", help="memory for counting (default 1G)")
    parser.add_argument("--kenlm-bin", type=Path, help="folder of lmplz and build_binary")
    parser.add_argument("--cache", type=Path, help="where lmplz is built if it has to be (default ~/.cache/dictalake)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
