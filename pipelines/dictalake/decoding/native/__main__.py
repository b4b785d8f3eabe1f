"""Compiles the search before anybody needs it, when an image is built: ``python -m dictalake.decoding.native``.

Set NUMBA_CPU_NAME=generic here and where the image runs: else the machine code is for this type of processor alone.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from dictalake.config.sections import Decoding
from dictalake.decoding.base import open_decoder
from dictalake.decoding.hotword_check import log_likelihood
from dictalake.decoding.native.ngram_arrays import build_ngrams
from dictalake.decoding.vocabulary import Vocabulary

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


def main() -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        lm = Path(folder) / "lm.arpa"
        lm.write_text(_ARPA, encoding="utf-8")
        build_ngrams(lm)
        vocabulary = Vocabulary.from_pieces(["<pad>", "▁a"], blank_id=0)
        for of_lm in (None, str(lm)):
            open_decoder(Decoding.model_validate({"lm": of_lm}), vocabulary).prepare()
    log_likelihood(np.zeros((2, 2)), [1], 0)
    print(f"the beam search is compiled: {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
