"""Looks at the file that ``decoding.lm`` names, and refuses with a reason what no search can use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import kenlm

from dictalake.config.locations import resolve
from dictalake.config.sections import Decoding
from dictalake.decoding.lm_file import check_lm_file
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.errors import ConfigError

# Two English tokenizers share single letters and a few short pieces; a model of the same tokenizer knows nearly all pieces.
_LEAST_KNOWN_SHARE = 0.3


def find_lm(config: Decoding) -> Path | None:
    """The file of the language model; None where there is to be none. Raises ConfigError where it is missing or damaged."""
    if config.lm is None:
        return None
    path = Path(resolve(config.lm))
    if not path.is_file():
        raise ConfigError(f"decoding.lm = {path}: no such file (allowed: a KenLM file on this machine, or nothing)")
    check_lm_file(config, path)
    return path


def load_kenlm(path: str, unpacked: str | None = None) -> Any:
    """The model that KenLM reads from ``path``, or from its copy ``unpacked``. Raises ConfigError."""
    options = kenlm.Config()
    options.show_progress, options.arpa_complain = False, kenlm.ARPALoadComplain.NONE
    try:
        return kenlm.Model(unpacked or path, options)
    except (OSError, RuntimeError) as error:
        reason = "it is empty" if Path(path).stat().st_size == 0 else "it is damaged, or of another kind"
        raise ConfigError(
            f"decoding.lm = {path}: KenLM cannot read it: {reason} (allowed: an ARPA or KenLM binary file of order 6 at "
            "most; make one with `dictalake build-lm`)"
        ) from error


def require_known(path: str, is_known: Callable[[str], bool], vocabulary: Vocabulary) -> None:
    """Raises ConfigError for a model that was made for the pieces of another tokenizer."""
    words = vocabulary.lm_words().values()
    known = sum(is_known(word) for word in words)
    if known < _LEAST_KNOWN_SHARE * len(words):
        raise ConfigError(
            f"decoding.lm = {path}: it knows {known} of the model's {len(words)} pieces, so it was made for another "
            "tokenizer; make one for this model with `dictalake build-lm`, or set decoding.lm to null"
        )
