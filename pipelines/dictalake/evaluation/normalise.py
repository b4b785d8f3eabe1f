"""Text normalisers for scoring, by name. An error rate means nothing without the name of its normaliser.

medasr       lower case, only letters, digits and apostrophes; spoken markup counts as words (MedASR's own scoring)
multimed     lower case, punctuation deleted, as the model card of Qwen3-ASR-1.7B-EN-Medical describes for MultiMed
words        medasr without spoken punctuation, for systems that may write it or leave it out
whisper      Whisper's own English normaliser, then words: ``forty milligrams`` equals ``40 milligrams``
===========  =========================================================================================================
=======
=================  ===================================================================================================
medasr             lower case, only letters, digits and apostrophes; spoken markup counts as words. As MedASR is scored
multimed           lower case, punctuation deleted: what the card of Qwen3-ASR-1.7B-EN-Medical says of its figures
words              medasr without spoken punctuation, for systems that write it, or leave it out, as they like
whisper            words, after Whisper's own English normaliser: ``forty milligrams`` and ``40 milligrams`` are the same
whisper-corrected  whisper without two of its faults: "oh" is zero only in a number, and "ok" is "okay"
=================  ===================================================================================================
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
    """:func:`normalise_medasr` without spoken punctuation, for systems that may write it or leave it out."""
    text = _SPOKEN_MARKUP.sub(" ", _TAGS.sub(" ", text))
    return " ".join(_SPOKEN_COMMANDS.sub(" ", normalise_medasr(text)).split())


def normalise_whisper(text: str) -> str:
    """Whisper's English normaliser (Radford et al. 2022, appendix C), then spoken punctuation dropped.

    Numbers become digits, contractions are spelt out, fillers are removed. The table of British spellings is missing, since
    transformers does not have it. Spoken punctuation is dropped last: until then it separates the numbers of two sentences.
    """
    text = _BRACKETS.sub(" ", _TAGS.sub(" ", text))  # Whisper's normaliser would drop headings together with their brackets
    return " ".join(_SPOKEN_COMMANDS.sub(" ", _whisper_normaliser()(text)).split())


_OKAY = re.compile(r"\b(?:ok|o\.k\.|o k)(?![\w.])", re.IGNORECASE)
_DIGIT = r"(?:\d+|zero|one|two|three|four|five|six|seven|eight|nine|ten|\w+teen|\w+ty|point)"
_LONE_OH = re.compile(rf"(?<!\w)oh(?!\w)(?!,?\s+{_DIGIT}\b)", re.IGNORECASE)
_AFTER_DIGIT = re.compile(rf"\b{_DIGIT}\s+$", re.IGNORECASE)
_OH = "ohhh"  # a word that Whisper's normaliser leaves alone


def normalise_whisper_corrected(text: str) -> str:
    """:func:`normalise_whisper` without two faults, which cost two to three points of word errors on conversations: it turns
    the exclamation "oh" into zero, and takes "ok" and "okay" for two words.

    "oh" stays a word, except beside a digit or a number word: "four point oh five".
    """

    def keep(match: re.Match[str]) -> str:
        return match[0] if _AFTER_DIGIT.search(match.string[: match.start()]) else _OH

    kept = _LONE_OH.sub(keep, _OKAY.sub("okay", text))
    return " ".join("oh" if word == _OH else word for word in normalise_whisper(kept).split())


@cache
def _whisper_normaliser() -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})


def normalise_multimed(text: str) -> str:
    """Lower case, punctuation deleted (``follow-up`` is ``followup``), spoken punctuation dropped like written punctuation."""
    text = _BRACKETS.sub(" ", _SPOKEN_MARKUP.sub(" ", _TAGS.sub(" ", text))).lower()
    kept = "".join(letter for letter in text if not unicodedata.category(letter).startswith(("P", "S")) or letter in "'%+")
    return " ".join(_SPOKEN_COMMANDS.sub(" ", " ".join(kept.split())).split())


NORMALISERS: dict[str, Callable[[str], str]] = {
    "medasr": normalise_medasr,
    "multimed": normalise_multimed,
    "words": normalise_words_only,
    "whisper": normalise_whisper,
    "whisper-corrected": normalise_whisper_corrected,
}
