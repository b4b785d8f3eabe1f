"""Text normalisers for scoring, by name. A rate without its normaliser's name means nothing.

===========  =========================================================================================================
medasr       lower case, only letters, digits and apostrophes; spoken markup counts as words. As MedASR is scored
multimed     lower case, punctuation deleted: what the card of Qwen3-ASR-1.7B-EN-Medical says of its figures on MultiMed
words        medasr without spoken punctuation, for systems that write it, or leave it out, as they like
whisper      words, after Whisper's own English normaliser: ``forty milligrams`` and ``40 milligrams`` are the same
===========  =========================================================================================================
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache

_TAGS = re.compile(r"</?s>")
_NOT_MEDASR = re.compile(r"[^a-z0-9']+")
_SPOKEN_MARKUP = re.compile(r"\{[^{}]*\}")
_BRACKETS = re.compile(r"[{}\[\]]")
_SPOKEN_COMMANDS = re.compile(
    r"\b(period|comma|colon|semicolon|question mark|slash|hyphen|open parenthesis|close parenthesis|open quote|close quote|"
    r"new line|newline|next line|new paragraph|next paragraph)\b"
)


def normalise_medasr(text: str) -> str:
    """MedASR's own scoring: lower case, ``</s>`` dropped, only ``[a-z0-9']`` kept, spaces collapsed.

    Spoken markup counts as words: ``{period}`` is scored as ``period``.
    """
    return " ".join(_NOT_MEDASR.sub(" ", _TAGS.sub(" ", text).lower()).split())


def normalise_words_only(text: str) -> str:
    """:func:`normalise_medasr` without spoken punctuation, for systems that write it or leave it out as they like."""
    text = _SPOKEN_MARKUP.sub(" ", _TAGS.sub(" ", text))
    return " ".join(_SPOKEN_COMMANDS.sub(" ", normalise_medasr(text)).split())


def normalise_whisper(text: str) -> str:
    """Whisper's English normaliser (Radford et al. 2022, appendix C), then spoken punctuation dropped.

    Numbers become digits, contractions are spelt out, fillers go. Without its table of British spellings, which is not part
    of transformers. Spoken punctuation goes last: before, it keeps the numbers of two sentences apart.
    """
    text = _BRACKETS.sub(" ", _TAGS.sub(" ", text))  # Whisper's normaliser would drop headings with their brackets
    return " ".join(_SPOKEN_COMMANDS.sub(" ", _whisper_normaliser()(text)).split())


@cache
def _whisper_normaliser() -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})


def normalise_multimed(text: str) -> str:
    """Lower case, punctuation deleted (``follow-up`` is ``followup``), spoken punctuation left out as if it were written."""
    text = _BRACKETS.sub(" ", _SPOKEN_MARKUP.sub(" ", _TAGS.sub(" ", text))).lower()
    kept = "".join(letter for letter in text if not unicodedata.category(letter).startswith(("P", "S")) or letter in "'%+")
    return " ".join(_SPOKEN_COMMANDS.sub(" ", " ".join(kept.split())).split())


NORMALISERS: dict[str, Callable[[str], str]] = {
    "medasr": normalise_medasr,
    "multimed": normalise_multimed,
    "words": normalise_words_only,
    "whisper": normalise_whisper,
}
