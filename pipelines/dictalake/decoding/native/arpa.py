"""Reads ARPA files: the word list by Python, and all longer n-grams by compiled code, a chunk of lines at a time."""

from __future__ import annotations

import gzip
import lzma
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from dictalake.decoding.native.compiled import compiled, compiled_part
from dictalake.decoding.native.tables import Records

_CHUNK_BYTES = 1 << 22
_COUNT = re.compile(rb"ngram\s+(\d+)\s*=\s*(\d+)")
_HASH_BEGIN, _HASH_PRIME = 0xCBF29CE484222325 - (1 << 64), 0x100000001B3  # FNV-1a
ENDED, MORE, UNUSUAL = range(3)  # the section is at its end, the chunk is, or a line is not as it should be


class UnusualArpaError(ValueError):
    """The file is no ARPA, or one that only KenLM can judge."""


class Unigrams(NamedTuple):
    words: list[str]
    logp: list[float]
    backoff: list[float]


class ArpaReader:
    """Reads one file from its beginning to its end: ``counts``, then ``read_unigrams``, then ``read_section`` for 2, 3, …"""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._rest = b""
        self.counts = self._read_counts()

    def _read_line(self) -> bytes:
        line = self._stream.readline()
        if not line:
            raise UnusualArpaError("it ends too early")
        return line.strip()

    def _read_counts(self) -> list[int]:
        counts = []
        while (line := self._read_line()) != rb"\1-grams:":
            if match := _COUNT.fullmatch(line):
                counts.append(int(match[2]))
            elif line not in (b"", rb"\data" + b"\\"):
                raise UnusualArpaError("no ARPA header")
        return counts

    def read_unigrams(self) -> Unigrams:
        found = Unigrams([], [], [])
        while len(found.words) < self.counts[0]:
            fields = self._read_line().split()
            if not 2 <= len(fields) <= 3:
                raise UnusualArpaError("a line of the word list is not as it should be")
            found.logp.append(float(fields[0]))
            found.words.append(fields[1].decode())
            found.backoff.append(float(fields[2]) if len(fields) == 3 else 0.0)
        return found

    def chunks(self) -> Iterator[np.ndarray]:
        """Whole lines as uint8, from where ``leave`` says that the reader is."""
        while True:
            fresh = self._stream.read(_CHUNK_BYTES)
            self._rest += fresh
            end = len(self._rest) if not fresh else self._rest.rfind(b"\n") + 1
            if not self._rest:
                raise UnusualArpaError("it ends too early")
            yield np.frombuffer(self._rest, np.uint8, end)

    def leave(self, used: int) -> None:
        """Drops the first ``used`` bytes of the last chunk, which are read."""
        self._rest = self._rest[used:]


def open_text(path: Path) -> BinaryIO:
    """The file as it is, or unpacked as it is read."""
    with path.open("rb") as stream:
        begins = stream.read(6)
    if begins.startswith(b"\x1f\x8b"):
        return gzip.open(path)  # type: ignore[return-value]
    if begins == b"\xfd7zXZ\x00":
        return lzma.open(path)  # type: ignore[return-value]
    return path.open("rb")


def hash_words(words: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """A hash table of the words' bytes: keys, and word ids (-1 where free)."""
    size = 1 << (4 * len(words)).bit_length()
    keys, ids = np.zeros(size, np.int64), np.full(size, -1, np.int32)
    joined = np.frombuffer("".join(words).encode(), np.uint8)
    ends = np.cumsum([len(word.encode()) for word in words])
    if not _insert_words(joined, ends, keys, ids):
        raise UnusualArpaError("a word stands there twice")
    return keys, ids


@compiled_part
def _hash(text: np.ndarray, start: int, end: int) -> int:
    value = int(_HASH_BEGIN)
    for index in range(start, end):
        value = (value ^ text[index]) * _HASH_PRIME
    return value


@compiled
def _insert_words(joined: np.ndarray, ends: np.ndarray, keys: np.ndarray, ids: np.ndarray) -> bool:
    start = 0
    for word in range(len(ends)):
        key = _hash(joined, start, ends[word])
        place = key & (len(keys) - 1)
        while ids[place] >= 0:
            if keys[place] == key:
                return False
            place = (place + 1) & (len(keys) - 1)
        keys[place], ids[place] = key, word
        start = ends[word]
    return True


@compiled_part
def find_child(ngrams: Records, contexts: Records, node: int, word: int) -> int:
    """The entry of ``node`` and then ``word``; -1 where there is none."""
    if node == 0:
        return 1 + word
    low, end = int(contexts[node].first), int(contexts[node + 1].first)
    high = end
    while low < high:
        middle = (low + high) // 2
        if ngrams[middle].word < word:
            low = middle + 1
        else:
            high = middle
    return low if low < end and ngrams[low].word == word else -1


@compiled
def parse_lines(
    text: np.ndarray,
    order: int,
    word_keys: np.ndarray,
    word_ids: np.ndarray,
    ngrams: Records,
    contexts: Records,
    count: int,
    keys: np.ndarray,
    logp: np.ndarray,
    backoff: np.ndarray,
) -> tuple[int, int, int]:
    """Reads n-grams of ``order`` behind the first ``count``: key (context node and last word), log10 P and back-off.

    Returns how it ended, the bytes read, and the number of n-grams.
    """
    at = 0
    while at < len(text):
        end = at
        while end < len(text) and text[end] != 10:
            end += 1
        following = end + 1
        while end > at and (text[end - 1] == 13 or text[end - 1] == 32 or text[end - 1] == 9):
            end -= 1
        if end == at:
            at = following
            continue
        if text[at] == 92:  # a backslash: the next section, or the end
            return ENDED, at, count
        if count == len(keys):
            return UNUSUAL, at, count
        field, node, word = 0, 0, -1
        backoff[count] = 0.0
        while at < end:
            start = at
            while at < end and text[at] != 32 and text[at] != 9:
                at += 1
            if field == 0 or field == order + 1:
                value = _parse_number(text, start, at)
                if value != value or (field == 0 and value > 0.0):
                    return UNUSUAL, start, count
                if field == 0:
                    logp[count] = value
                else:
                    backoff[count] = value
            elif field <= order:
                if word >= 0:
                    node = find_child(ngrams, contexts, node, word)
                key = _hash(text, start, at)
                place = key & (len(word_keys) - 1)
                while word_ids[place] >= 0 and word_keys[place] != key:
                    place = (place + 1) & (len(word_keys) - 1)
                word = int(word_ids[place])
                if word < 0 or node < 0:
                    return UNUSUAL, start, count
            field += 1
            while at < end and (text[at] == 32 or text[at] == 9):
                at += 1
        if field <= order or field > order + 2:
            return UNUSUAL, at, count
        keys[count] = node << 16 | word
        count += 1
        at = following
    return MORE, min(at, len(text)), count


@compiled_part
def _parse_number(text: np.ndarray, start: int, end: int) -> float:
    """A decimal number; NaN for anything else."""
    sign, at = 1.0, start
    if at < end and (text[at] == 45 or text[at] == 43):
        sign = -1.0 if text[at] == 45 else 1.0
        at += 1
    digits, scale, seen, point = 0.0, 0, 0, False
    while at < end and (48 <= text[at] <= 57 or (text[at] == 46 and not point)):
        if text[at] == 46:
            point = True
        else:
            digits = digits * 10.0 + (text[at] - 48)
            scale -= 1 if point else 0
            seen += 1
        at += 1
    if at < end and (text[at] == 101 or text[at] == 69):
        at += 1
        negative = at < end and text[at] == 45
        if at < end and (text[at] == 45 or text[at] == 43):
            at += 1
        exponent = 0
        while at < end and 48 <= text[at] <= 57 and exponent < 1000:
            exponent = exponent * 10 + (text[at] - 48)
            at += 1
        scale += -exponent if negative else exponent
    if at < end or seen == 0:
        return np.nan
    return sign * digits * 10.0**scale
