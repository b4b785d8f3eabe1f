"""Spoken markup → readable text: ``{period}`` becomes ".", and ``[FINDINGS]`` gets its own line.

Unknown markup stays as it was spoken (``markup.py``). All other words keep their order and change at most in their first
letter. Headings are in capitals. With ``numbers``, spoken numbers become digits (``inverse_text_normalization.py``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from dictalake.transcript import markup
from dictalake.transcript.inverse_text_normalization import write_numbers
from dictalake.transcript.sections import Section, name_heading

_VERSION = "2"
_SAID_ONCE = frozenset(".?!,:;…")


def formatter_version(numbers: bool) -> str:
    """The settings that turn ``text_raw`` into ``text``."""
    return f"{_VERSION}+numbers" if numbers else _VERSION


@dataclass(frozen=True)
class Formatted:
    """``text`` is for people. ``sections`` are in order; a text without headings has none, and what comes before the first
    heading has the heading "". ``repaired`` counts malformed markers that were understood, ``unknown`` those kept verbatim.
    """

    text: str
    sections: tuple[Section, ...]
    repaired: int = 0
    unknown: int = 0


def format_text(text_raw: str, numbers: bool = False) -> Formatted:
    """Renders the decoder's text. Never raises; keeps unknown markup verbatim and drops ``</s>`` and the like.

    >>> format_text("[FINDINGS] {colon} no acute fracture {period} {new paragraph} lungs are clear {period}").text
    'FINDINGS:\\nNo acute fracture.\\n\\nLungs are clear.'

    A word is capitalised at the beginning of the text, of a line and of a sentence, unless it has a capital already (``pH``).
    A stop, comma or colon spoken twice in a row is written once. A heading without brackets counts only if it is a known one,
    begins a line and is followed by a colon. With ``numbers``, ``five milligrams`` becomes ``5 mg``.
    """
    read = markup.read_markup(text_raw)
    sections: list[tuple[str, _Writer]] = [("", _Writer())]
    after_heading = False
    for index, token in enumerate(read.tokens):
        writer = sections[-1][1]
        heading = _heading_at(read.tokens, index, writer)
        if heading:
            sections.append((heading, _Writer()))
            after_heading = True
            continue
        if after_heading and token in (markup.COLON, markup.PERIOD):
            continue
        writer.add(_with_numbers(read.tokens, index) if numbers else token)
        after_heading = False
    written = [Section(heading, name_heading(heading), writer.text()) for heading, writer in sections]
    parts = [f"{section.heading.upper()}:\n{section.text}".strip() if section.heading else section.text for section in written]
    kept = tuple(section for section in written if section.heading or section.text)
    text = "\n\n".join(part for part in parts if part)
    return Formatted(text, kept if len(sections) > 1 else (), read.repaired, read.unknown)


def _heading_at(tokens: Sequence[markup.Token], index: int, writer: _Writer) -> str | None:
    """The heading at ``tokens[index]``, recognised by its brackets or by its position."""
    token = tokens[index]
    if isinstance(token, markup.Heading):
        return token.said
    if isinstance(token, markup.Words) and tokens[index + 1 : index + 2] == (markup.COLON,) and writer.at_line_start():
        said = " ".join(token.text.split())
        # Letters and spaces only: "[" or "&" would be lost on the way to the table.
        return said if re.fullmatch(r"[A-Za-z ]+", said) and name_heading(said, exactly=True) else None
    return None


def _with_numbers(tokens: Sequence[markup.Token], index: int) -> markup.Token:
    """``tokens[index]`` with its numbers as digits; small numbers too, if a ``%`` or ``°`` follows."""
    token = tokens[index]
    if not isinstance(token, markup.Words) or token.unknown:
        return token
    following = tokens[index + 1] if index + 1 < len(tokens) else None
    measured = isinstance(following, markup.Mark) and following.sign in "%°"
    return markup.Words(" ".join(write_numbers(token.text.split(), measured=measured)))


@dataclass
class _Writer:
    """Collects the text of one section."""

    parts: list[str] = field(default_factory=list)
    capital: bool = True
    glued: bool = True
    last_mark: markup.Mark | None = None
    opened: set[markup.Pair] = field(default_factory=set)

    def add(self, token: markup.Token) -> None:
        match token:
            case markup.Words(text=text):
                self._add_words(text)
            case markup.Mark():
                self._add_mark(token)
            case markup.Pair(opening=opening, closing=closing):
                self._add_mark(closing if token in self.opened else opening)
            case markup.Break(newlines=newlines):
                self._add_break(newlines)
            case markup.Bullet():
                if not self.at_line_start():
                    self._add_break("\n")
                self._put("-", glued_before=True)
                self.glued, self.last_mark = False, None
            case markup.Capital():
                self.capital = True

    def text(self) -> str:
        return re.sub(r"\n{3,}", "\n\n", "".join(self.parts)).strip("\n")

    def at_line_start(self) -> bool:
        return not self.parts or self.parts[-1].endswith("\n")

    def _add_words(self, words: str) -> None:
        for word in words.split():
            # A plus is glued to a grade before it (2+ edema), and to both numbers of a sum (3+4).
            sum_of = self.last_mark == markup.PLUS and _ends_in_digit(self.parts[:-1]) and word[:1].isdigit()
            self._put(_capitalise(word) if self.capital else word, glued_before=sum_of)
            self.capital, self.glued, self.last_mark = False, False, None

    def _add_mark(self, mark: markup.Mark) -> None:
        if mark == self.last_mark and mark.sign in _SAID_ONCE:
            return
        for pair in (markup.QUOTE, markup.SINGLE_QUOTE, markup.PAREN, markup.BRACKET):
            if mark == pair.opening:
                self.opened.add(pair)
            elif mark == pair.closing:
                self.opened.discard(pair)
        # A hyphen at the beginning of a line is a bullet.
        bullet = mark == markup.HYPHEN and self.at_line_start()
        self._put(mark.sign, mark.glued_before)
        self.glued = mark.glued_after and not bullet
        self.capital = self.capital or mark.ends_sentence
        self.last_mark = mark

    def _add_break(self, newlines: str) -> None:
        self.parts.append(newlines)
        self.capital, self.glued, self.last_mark = True, True, None
        self.opened.clear()  # an unclosed pair must not make the next opening sign a closing one

    def _put(self, written: str, glued_before: bool) -> None:
        if not (self.glued or glued_before):
            self.parts.append(" ")
        self.parts.append(written)


def _ends_in_digit(parts: Sequence[str]) -> bool:
    return bool(parts) and parts[-1][-1:].isdigit()


def _capitalise(word: str) -> str:
    first = word[:1].upper()
    # Words with capitals, and letters whose capital has another lower case (ß, ı), stay as they are.
    return first + word[1:] if first.lower() == word[:1] and not any(letter.isupper() for letter in word[1:]) else word
