"""Spoken markup → readable text: ``{period}`` becomes ".", ``[FINDINGS]`` a line of its own.

The markup is MedASR's. The set is open-ended and models misspell it, so what is not known here stays as it was said:
better an odd ``{foo}`` in a report than a lost word. Everything but markup comes out in the order it went in, changed at most
in its first letter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

FORMATTER_VERSION = "1"

_MARKUP = re.compile(r"(\{[^{}\[\]]*\}|\[[^{}\[\]]*\])")
_HEADING = re.compile(r"\[\s*([A-Z][A-Z0-9 /&,'().-]*?)\s*\]")
_SAID_ONCE = frozenset(".?!,:;…")
_SPECIAL = re.compile(r"</?s>|<pad>|<unk>")


@dataclass(frozen=True)
class Formatted:
    """``text`` for people. ``sections`` are ``(heading, text)`` in order, none without headings; what comes before the
    first heading has the heading "".
    """

    text: str
    sections: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Mark:
    """How a dictated sign is written: is it glued to what is before it and to what comes after it."""

    sign: str
    glued_before: bool = True
    glued_after: bool = False
    ends_sentence: bool = False


_OPEN, _CLOSE = {"glued_before": False, "glued_after": True}, {"glued_before": True, "glued_after": False}
# Names without spaces and hyphens, lower case.
_MARKS: dict[str, _Mark] = {
    **dict.fromkeys(("period", "fullstop"), _Mark(".", ends_sentence=True)),
    "questionmark": _Mark("?", ends_sentence=True),
    **dict.fromkeys(("exclamationpoint", "exclamationmark"), _Mark("!", ends_sentence=True)),
    "comma": _Mark(","),
    "colon": _Mark(":"),
    "semicolon": _Mark(";"),
    "ellipsis": _Mark("…"),
    **dict.fromkeys(("percentsign", "percent"), _Mark("%")),
    **dict.fromkeys(("slash", "forwardslash"), _Mark("/", glued_after=True)),
    "backslash": _Mark("\\", glued_after=True),
    "hyphen": _Mark("-", glued_after=True),
    "apostrophe": _Mark("'", glued_after=True),
    "dash": _Mark("-", glued_before=False),
    "ampersand": _Mark("&", glued_before=False),
    **dict.fromkeys(("openparenthesis", "openparentheses", "openparen", "leftparenthesis", "leftparen"), _Mark("(", **_OPEN)),
    **dict.fromkeys(
        ("closeparenthesis", "closeparentheses", "closeparen", "rightparenthesis", "rightparen"), _Mark(")", **_CLOSE)
    ),
    **dict.fromkeys(("openbracket", "leftbracket"), _Mark("[", **_OPEN)),
    **dict.fromkeys(("closebracket", "rightbracket"), _Mark("]", **_CLOSE)),
    **dict.fromkeys(("openquote", "openquotes", "openquotationmark", "beginquote"), _Mark('"', **_OPEN)),
    **dict.fromkeys(("closequote", "closequotes", "closequotationmark", "endquote", "unquote"), _Mark('"', **_CLOSE)),
}
_BREAKS = {
    **dict.fromkeys(("newline", "nextline"), "\n"),
    **dict.fromkeys(("newparagraph", "nextparagraph"), "\n\n"),
}


def format_text(text_raw: str) -> Formatted:
    """Renders what the decoder said. Never raises; unknown markup is kept verbatim, ``</s>`` and its like are dropped.

    >>> format_text("[FINDINGS] {colon} no acute fracture {period} {new paragraph} lungs are clear {period}").text
    'FINDINGS:\\nNo acute fracture.\\n\\nLungs are clear.'

    A word is capitalised at the beginning of the text, of a line and of a sentence, unless it has a capital already (``pH``).
    A stop, comma or colon said twice in a row is written once.
    """
    sections: list[tuple[str, _Writer]] = [("", _Writer())]
    after_heading = False
    for token in _MARKUP.split(_SPECIAL.sub(" ", text_raw)):
        heading = _HEADING.fullmatch(token)
        name = re.sub(r"[\s-]", "", token[1:-1]).lower() if token.startswith("{") and token.endswith("}") else ""
        if heading:
            sections.append((" ".join(heading[1].split()), _Writer()))
        elif name in _BREAKS:
            sections[-1][1].add_break(_BREAKS[name])
        elif name == "colon" and after_heading:
            continue
        elif name in _MARKS:
            sections[-1][1].add_mark(_MARKS[name])
        else:
            sections[-1][1].add_words(token)
        after_heading = bool(heading) or (after_heading and not token.strip())
    written = [(heading, writer.text()) for heading, writer in sections]
    parts = [f"{heading}:\n{text}".strip() if heading else text for heading, text in written]
    kept = [(heading, text) for heading, text in written if heading or text]
    return Formatted("\n\n".join(part for part in parts if part), tuple(kept) if len(sections) > 1 else ())


@dataclass
class _Writer:
    """Text of one section as it grows."""

    parts: list[str] = field(default_factory=list)
    capital: bool = True
    glued: bool = True
    last_mark: _Mark | None = None

    def add_words(self, words: str) -> None:
        for word in words.split():
            self._put(_capitalise(word) if self.capital else word, glued_before=False)
            self.capital, self.glued, self.last_mark = False, False, None

    def add_mark(self, mark: _Mark) -> None:
        if mark is self.last_mark and mark.sign in _SAID_ONCE:
            return
        # A hyphen at the beginning of a line is a bullet.
        bullet = mark.sign == "-" and self._at_line_start()
        self._put(mark.sign, mark.glued_before)
        self.glued = mark.glued_after and not bullet
        self.capital = self.capital or mark.ends_sentence
        self.last_mark = mark

    def add_break(self, newlines: str) -> None:
        self.parts.append(newlines)
        self.capital, self.glued, self.last_mark = True, True, None

    def text(self) -> str:
        return re.sub(r"\n{3,}", "\n\n", "".join(self.parts)).strip("\n")

    def _at_line_start(self) -> bool:
        return not self.parts or self.parts[-1].endswith("\n")

    def _put(self, written: str, glued_before: bool) -> None:
        if not (self.glued or glued_before):
            self.parts.append(" ")
        self.parts.append(written)


def _capitalise(word: str) -> str:
    first = word[:1].upper()
    # Letters that do not come back from their capital (ß, ı) and words with capitals of their own stay as they are.
    return first + word[1:] if first.lower() == word[:1] and not any(letter.isupper() for letter in word[1:]) else word
