"""Compiles the search before anybody needs it: when an image or an environment is made, and as a run starts.

    python -m dictalake.decoding.native

Set NUMBA_CPU_NAME=generic here and where the image runs: else the machine code is for this type of processor alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dictalake.config.sections import Decoding
from dictalake.decoding.base import open_decoder
from dictalake.decoding.hotword_check import log_likelihood
from dictalake.decoding.native.hash_table import insert_all, insert_one
from dictalake.decoding.native.kenlm_lookup import look_up
from dictalake.decoding.native.language_model import OpenModel
from dictalake.decoding.native.machine_code import made_once
from dictalake.decoding.native.ngram_arrays import build_ngrams
from dictalake.decoding.native.tables import NO_LM, make_transitions
from dictalake.decoding.vocabulary import Vocabulary

_VOCABULARY = Vocabulary.from_pieces(["<pad>", "▁a"], blank_id=0)
_ARPA = """\\data\\
ngram 1=4
ngram 2=1

\\1-grams:
-5\t<unk>
-99\t<s>\t0
-1\t</s>
-1\t#a\t0

\\2-grams:
-1\t<s> #a

\\end\\
"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m dictalake.decoding.native", description="Compiles the search.")
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; without any, all")
    parts = parser.parse_args(argv).parts or [*PARTS]
    started = time.monotonic()
    with made_once():
        for part in parts:
            PARTS[part]()
    print(f"the beam search is compiled: {time.monotonic() - started:.1f} s")


def compile_search() -> None:
    open_decoder(Decoding.model_validate({"lm": None}), _VOCABULARY).prepare()


def compile_kenlm() -> None:
    """A KenLM file is a binary for which there is no example here."""
    _, _, table, data, levels, states, filled = OpenModel(NO_LM, np.zeros(1, np.int64)).tables()
    look_up(data, levels, states, filled, table, 0, 0, 0)


def compile_arpa() -> None:
    with tempfile.TemporaryDirectory() as folder:
        lm = Path(folder) / "lm.arpa"
        lm.write_text(_ARPA, encoding="utf-8")
        build_ngrams(lm)
        open_decoder(Decoding.model_validate({"lm": str(lm)}), _VOCABULARY)


def compile_hotwords() -> None:
    log_likelihood(np.zeros((2, 2)), [1], 0)
    steps = make_transitions(4)
    insert_one(steps, 1, 1, 0.0)
    insert_all(make_transitions(8), steps)


PARTS = {"kenlm": compile_kenlm, "search": compile_search, "arpa": compile_arpa, "hotwords": compile_hotwords}


if __name__ == "__main__":
    main()
