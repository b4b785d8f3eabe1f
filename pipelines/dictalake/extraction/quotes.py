"""Finds what the model quoted in the text that it read. What does not stand there is not taken.

A quote may differ from the text in letter case, in white space and in the shape of quotation marks and dashes, since models
change these when they copy. Nothing else may differ, and it must begin and end with a whole word. What is stored is the
passage as it stands in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dictalake.transcript.inverse_text_normalization import write_numbers
from dictalake.transcript.number_words import is_cardinal, read_fraction, read_number, run_end

_SHAPES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "‑": "-", "\u00a0": " ", "…": "."})
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*|(?<![\w.,)])\.\d+")
_FRACTION = re.compile(r"(?<![\d/.,])([1-9])/([2-9])(?![\d/])")
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_HALF = frozenset(("half", "halves"))
_NEAR_CHARS = 60  # around a quote, in which the words are that a spoken number goes on with


@dataclass(frozen=True)
class Span:
    """Characters ``start`` … ``end`` of a text."""

    start: int
    end: int

    def meets(self, other: Span) -> bool:
        return self.start < other.end and other.start < self.end


def find_quote(quote: str, text: str) -> list[Span]:
    """Every place at which ``quote`` stands in ``text``; none for a quote without a letter or digit."""
    words = quote.translate(_SHAPES).split()
    if not any(character.isalnum() for character in quote):
        return []
    pattern = r"\s+".join(re.escape(word) for word in words)
    plain = text.translate(_SHAPES)
    found = re.finditer(f"{_make_start(words[0])}{pattern}{_make_end(words[-1])}", plain, re.IGNORECASE)
    spans = [Span(match.start(), match.end()) for match in found]
    return [span for span in spans if not (_cuts_number(plain, span.start) or _cuts_number(plain, span.end))]


def _make_start(word: str) -> str:
    """A quote may not begin inside a word or a number: "tender" is not in "non-tender", nor "5" in ".5" or "2" in "1/2"."""
    if re.match(r"[.,]\d", word):
        return r"(?<!\d)"
    if not word[0].isalnum():
        return ""
    return r"(?<!\w)(?<!\d[.,])(?<!\bnon-)" + (r"(?<![^a-z]\.)(?<!\A\.)(?<!\b[1-9]/)" if word[0].isdigit() else "")


def _make_end(word: str) -> str:
    """Nor may it end inside one: "no" is not in "node", "can" not in "can't", nor "4" or "4." in "4.5"."""
    if re.search(r"\d[.,]$", word):
        return r"(?!\d)"
    return r"(?!\w)(?![.,]\d)(?!/[2-9]\b)(?!'t\b)" if word[-1].isalnum() else ""


def _cuts_number(text: str, place: int) -> bool:
    """Whether ``place`` is inside a spoken number, as before the "five" of "twenty five" or of "point five"."""
    left = text[max(0, place - _NEAR_CHARS) : place].lower().replace("-", " ").split()[-3:]
    right = text[place : place + _NEAR_CHARS].lower().replace("-", " ").split()[:3]
    if not left or not right:
        return False
    right[-1] = right[-1].rstrip(".,;:")
    words, seam = [*left, *right], len(left)
    if any(_end_of_half(words, start) > max(seam, start + 2) for start in range(seam)):  # but "a half" may lose its "a"
        return True
    if words[seam - 1] in ("point", "oh") and is_cardinal(words[seam]):
        return True
    if words[seam] in ("point", "oh") and seam + 1 < len(words) and is_cardinal(words[seam + 1]):
        return is_cardinal(words[seam - 1])
    if not (words[seam] == "and" or is_cardinal(words[seam])):  # digits beside digits are two numbers
        return False
    return any(run_end(words, start) > seam for start in range(seam))


def says_number(number: float, passage: str) -> bool:
    """Whether ``passage`` says ``number``, in digits or in words."""
    return any(abs(number - said) <= 1e-9 * max(1.0, abs(said)) for said in list_numbers(passage))


def says_spoken_numbers(value: str, passage: str) -> bool:
    """Whether ``passage`` says every number that stands in words in ``value``; "one" may be none."""
    spoken = [number for word, is_spoken in _write_each(_read_halves(value)[1]) if is_spoken for number in _read_digits(word)]
    return all(says_number(number, passage) for number in spoken if number != 1)


def list_numbers(passage: str) -> list[float]:
    """The numbers of a passage. The comma of 4,2 stands for the point; that of 12,500 may group digits too."""
    passage, words = _read_halves(passage)
    written = [passage, *write_numbers(words), *(word for word, is_spoken in _write_each(words) if is_spoken)]
    return [number for text in written for number in _read_digits(text)]


def write_spoken(passage: str) -> list[str]:
    """The passage as it is, as the formatter writes its numbers, and with every spoken number in digits."""
    passage, words = _read_halves(passage)
    return [passage, " ".join(write_numbers(words)), " ".join(word for word, _ in _write_each(words))]


def _list_words(passage: str) -> list[str]:
    return [word.strip(";:()").rstrip(".,;:()") for word in passage.lower().replace("-", " ").split()]


def _read_halves(passage: str) -> tuple[str, list[str]]:
    """A passage and its words, where "half a tablet" is 0.5 tablet and "two and a half" is 2.5, and no 2."""
    words, read = _list_words(passage), []
    place, has_half = 0, False
    while place < len(words):
        end = _end_of_half(words, place)
        if end > place:
            number = read_number(words, place) if words[place] not in _HALF else None
            read.append(f"{number.value + 0.5:g}" if number and words[end - 3] == "and" else "0.5")
            while words[end : end + 1] and words[end] in ("of", "a"):
                end += 1
            has_half = True
        else:
            read.append(words[place])
            end = place + 1
        place = end
    return (" ".join(read), read) if has_half else (passage, words)


def _end_of_half(words: Sequence[str], start: int) -> int:
    """The end of "half", "a half", "one half", or "two and a half" that begins at ``start``; else ``start``."""
    if words[start] in _HALF:
        return start + 1
    if words[start] in ("a", "one") and words[start + 1 : start + 2] and words[start + 1] in _HALF:
        return start + 2
    number = read_number(words, start)
    and_a_half = list(words[number.end : number.end + 3]) if number else []
    is_half = and_a_half[:1] == ["and"] and and_a_half[1:2] in (["a"], ["one"]) and and_a_half[2:] in (["half"], ["halves"])
    return number.end + 3 if number and is_half else start


def _write_each(words: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Words, and spoken numbers in digits (true), each whole: "twenty five" is no five."""
    index = 0
    while index < len(words):
        number = read_fraction(words, index) if words[index] == "point" else read_number(words, index)
        yield (number.written, True) if number else (words[index], False)
        index = number.end if number else index + 1


def _read_digits(text: str) -> list[float]:
    numbers = [int(part) / int(whole) for part, whole in _FRACTION.findall(text)]
    for found in _NUMBER.findall(text):
        for plain in {found.replace(",", "") if _GROUPED.fullmatch(found) else found, found.replace(",", ".")}:
            pieces = re.split(r"[.,]", plain) if plain.count(".") + plain.count(",") > 1 else [plain.replace(",", ".")]
            numbers += [float(piece) for piece in pieces if piece]  # 1.2.2026
    return numbers
