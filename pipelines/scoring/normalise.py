"""Text normalisers for scoring, by name. A rate without its normaliser's name means nothing."""

from __future__ import annotations

import re
from collections.abc import Callable

_TAGS = re.compile(r"</?s>")
_NOT_MEDASR = re.compile(r"[^a-z0-9']+")
_SPOKEN_MARKUP = re.compile(r"\{[^{}]*\}")
_SPOKEN_COMMANDS = re.compile(
    r"\b(period|comma|colon|semicolon|question mark|slash|hyphen|open parenthesis|close parenthesis|open quote|close quote|"
    r"new line|new paragraph)\b"
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


NORMALISERS: dict[str, Callable[[str], str]] = {"medasr": normalise_medasr, "words": normalise_words_only}
