"""Spoken markup → tokens: ``{period}``, ``{new paragraph}``, ``[FINDINGS]``, also as models misspell them.

The markup is MedASR's. Its set is open-ended, and models misspell it. A marker is repaired if only one meaning is possible:
a known one with too many, too few or misplaced braces (``{next} para}graph}``, ``period}``), or one wrong letter inside whole
braces (``{perod}``). Everything else stays as it was spoken: an odd ``{foo}`` in a report is better than a lost word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from dictalake.transcript.sections import known_headings, name_heading


@dataclass(frozen=True)
class Mark:
    """How a dictated sign is written, and whether it joins the text before it and the text after it without a space."""

    sign: str
    glued_before: bool = True
    glued_after: bool = False
    ends_sentence: bool = False


@dataclass(frozen=True)
class Pair:
    """A sign with the same spoken name for opening and closing: ``{quote} … {quote}``."""

    opening: Mark
    closing: Mark


@dataclass(frozen=True)
class Break:
    """``\\n`` or ``\\n\\n``."""

    newlines: str


@dataclass(frozen=True)
class Bullet:
    """An item of a list; it begins a new line."""


@dataclass(frozen=True)
class Capital:
    """The next word starts with a capital letter."""


@dataclass(frozen=True)
class Heading:
    """``said`` is the heading as it was spoken, without its brackets."""

    said: str


@dataclass(frozen=True)
class Words:
    """Anything else. With ``unknown`` it looks like markup and is kept verbatim."""

    text: str
    unknown: bool = False


Sign = Mark | Pair | Break | Bullet | Capital
Token = Sign | Heading | Words


@dataclass(frozen=True)
class Markup:
    """``repaired`` counts markers that were malformed, ``unknown`` those kept verbatim."""

    tokens: tuple[Token, ...]
    repaired: int
    unknown: int


def _opening(sign: str) -> Mark:
    return Mark(sign, glued_before=False, glued_after=True)


def _spaced(sign: str) -> Mark:
    return Mark(sign, glued_before=False)


def _joining(sign: str) -> Mark:
    return Mark(sign, glued_after=True)


PERIOD, COLON, PLUS, HYPHEN = Mark(".", ends_sentence=True), Mark(":"), Mark("+"), _joining("-")
PAREN, BRACKET = Pair(_opening("("), Mark(")")), Pair(_opening("["), Mark("]"))
QUOTE, SINGLE_QUOTE = Pair(_opening('"'), Mark('"')), Pair(_opening("'"), Mark("'"))


def _sides(pair: Pair, plain: str) -> dict[str, Sign]:
    """The spoken names of ``pair``. Its ``plain`` names alternate between the sides; a word before them names the side."""
    names = plain.split("|")
    sides: dict[str, Sign] = dict.fromkeys(names, pair)
    sides |= {f"{word} {name}": pair.opening for name in names for word in ("open", "opening", "left", "begin", "start")}
    return sides | {f"{word} {name}": pair.closing for name in names for word in ("close", "closing", "right", "end")}


_SPOKEN: dict[str, Sign] = {
    "period|full stop": PERIOD,
    "question mark": Mark("?", ends_sentence=True),
    "exclamation point|exclamation mark": Mark("!", ends_sentence=True),
    "comma": Mark(","),
    "colon": COLON,
    "semicolon": Mark(";"),
    "ellipsis|dot dot dot": Mark("…"),
    "percent|percent sign|percent symbol": Mark("%"),
    "degree sign|degrees sign|degree symbol": Mark("°"),
    "plus|plus sign": PLUS,
    "slash|forward slash|slash mark": _joining("/"),
    "backslash": _joining("\\"),
    "underscore": _joining("_"),
    "hyphen": HYPHEN,
    "apostrophe": _joining("'"),
    "point|decimal point|dot": _joining("."),
    "dash|em dash|en dash": _spaced("-"),
    "ampersand|and sign": _spaced("&"),
    "at sign": _spaced("@"),
    "asterisk": _spaced("*"),
    "equals|equals sign|equal sign": _spaced("="),
    "times sign|multiplication sign": _spaced("x"),
    "number sign|pound sign|hash sign|hashtag": _opening("#"),
    "dollar sign": _opening("$"),
    "minus|minus sign": _opening("-"),
    "plus minus|plus or minus|plus minus sign": _opening("±"),
    "tilde": _opening("~"),
    "greater than|greater than sign": _opening(">"),
    "less than|less than sign": _opening("<"),
    "greater than or equal to": _opening("≥"),
    "less than or equal to": _opening("≤"),
    "unquote": QUOTE.closing,
    "new line|next line|line break|line feed": Break("\n"),
    "new paragraph|next paragraph|paragraph|begin paragraph|paragraph break|blank line": Break("\n\n"),
    "bullet|bullet point|new bullet|next bullet": Bullet(),
    "cap|capital|capitalize": Capital(),
}
_NAMES: dict[str, Sign] = {
    **{name: sign for spoken, sign in _SPOKEN.items() for name in spoken.split("|")},
    **_sides(QUOTE, "quote|quotes|quotation mark|quotation marks|double quote|inverted commas"),
    **_sides(SINGLE_QUOTE, "single quote"),
    **_sides(PAREN, "paren|parens|parenthesis|parentheses"),
    **_sides(BRACKET, "bracket|square bracket"),
}
_SQUEEZED = {name.replace(" ", ""): sign for name, sign in _NAMES.items()}
_MIN_MISSPELT = 4  # a marker of fewer letters may have no wrong one

_SPECIAL = re.compile(r"</?s>|<pad>|<unk>")
_WHOLE = r"\{[^{}\[\]]*\}|\[[^{}\[\]]*\]"
_HEADING = re.compile(r"\[\s*([A-Z][A-Z0-9 /&,'().-]*?)\s*\]")
_STRAY = re.compile(r"[{}\[\]]")


def read_markup(text_raw: str) -> Markup:
    """Splits the decoder's text. Drops ``</s>`` and the like; every other word is in a token, in order.

    >>> read_markup("clear {next} para}graph} {foo}").repaired
    1
    """
    text = _SPECIAL.sub(" ", text_raw)
    whole_only = not _STRAY.search(re.sub(_WHOLE, "", text))
    tokens: list[Token] = []
    repaired = unknown = at = 0
    for match in _scanner(not whole_only).finditer(text):
        tokens += [Words(text[at : match.start()])] if text[at : match.start()].strip() else []
        token, malformed = _read_marker(match)
        tokens.append(token)
        repaired += malformed
        at = match.end()
    tokens += [Words(text[at:])] if text[at:].strip() else []
    for token in tokens:
        if isinstance(token, Words):
            unknown += 1 if token.unknown else sum(bool(_STRAY.search(word)) for word in token.text.split())
    return Markup(tuple(tokens), repaired, unknown)


def _read_marker(match: re.Match[str]) -> tuple[Token, bool]:
    """The token of one match of the scanner, and whether it was malformed."""
    said = match[0]
    whole = re.fullmatch(_WHOLE, said) is not None
    bare = " ".join(_STRAY.sub("", said).split())
    squeezed = re.sub(r"[\s-]", "", bare).lower()
    heading = _HEADING.fullmatch(said)
    if match.lastgroup == "heading":
        return Heading(bare), True
    if squeezed in _SQUEEZED:
        return _SQUEEZED[squeezed], not (whole and said.startswith("{"))
    if heading:
        return Heading(" ".join(heading[1].split())), False
    if name_heading(bare, exactly=True):
        return Heading(bare), True
    sign = _misspelt(squeezed) if said.startswith("{") else None
    return (sign, True) if sign else (Words(said, unknown=True), False)


@cache
def _misspelt(squeezed: str) -> Sign | None:
    """The only sign whose name is one letter away."""
    if len(squeezed) < _MIN_MISSPELT:
        return None
    near = process.extract(squeezed, _SQUEEZED.keys(), scorer=Levenshtein.distance, score_cutoff=1, limit=None)
    signs = {_SQUEEZED[name] for name, _, _ in near}
    return signs.pop() if len(signs) == 1 else None


@cache
def _scanner(strays: bool) -> re.Pattern[str]:
    """Finds markers; with ``strays`` also those that lack a brace or a bracket, or have too many.

    A marker that is opened and closed much later is something else (``{period of rest}``), so it is left to ``whole``.
    """
    signs, headings = _loosely(_NAMES), _loosely(known_headings())
    close = r"\s{0,2}[}\]]{1,3}"
    open_only = r"(?![A-Za-z0-9])(?![^{}\[\]]{0,60}[}\]])"
    alternatives = [rf"(?P<opened>[{{\[]{{1,3}}\s{{0,2}}(?i:{signs})(?:{close}|{open_only}))", rf"(?P<whole>{_WHOLE})"]
    if strays:
        alternatives += [
            rf"(?P<closed>(?<![A-Za-z0-9{{\[])(?i:{signs}){close})",
            rf"(?P<heading>[{{\[]{{1,3}}\s{{0,2}}(?:{headings})(?:{close}|{open_only})|(?<![A-Za-z0-9{{\[])(?:{headings}){close})",
        ]
    return re.compile("|".join(alternatives))


def _loosely(names: Iterable[str]) -> str:
    """A pattern for ``names``, the longest first, that allows two stray braces between letters and four between words."""
    words = (
        [r"[{}\[\]]{0,2}".join(map(re.escape, word)) for word in name.split()] for name in sorted(names, key=len, reverse=True)
    )
    return "|".join(r"[\s{}\[\]-]{0,4}".join(word) for word in words)
