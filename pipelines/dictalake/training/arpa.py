"""Reads and writes back-off n-gram models as ARPA files, and puts several models on a common set of n-grams.

    \\data\\                  A listed n-gram has its own probability p(w|h). Any other has
    ngram 1=4                α(h)·p(w|h'), where h' is h without its first word. A line holds
    \\1-grams:                log10 p(w|h), the n-gram, and log10 α of the n-gram as a history.
    -0.9 no -0.3             The format is Doug Paul's; SRILM's ``ngram-format(5)`` describes it.

A model is held in arrays, one set for each length of n-gram, so a million n-grams take seconds. An n-gram is a row of word
ids. It has the row numbers of its history (all but its last word) and of its suffix (all but its first) one length below.
"""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dictalake.errors import ConfigError

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
BINARY_MAGIC = b"mmap lm http://kheafield.com/code"
LEAST_LOG10 = -99.0  # the format's "never"; <s> is never predicted
_LEAST_LEFT = 1e-7  # ARPA files have seven digits, so a sum may exceed one by this much
_WRITE_LINES = 50_000


@dataclass(frozen=True)
class Arpa:
    """The content of an ARPA file. ``grams[n-1]`` are int64 ids into ``words``, ``(count, n)``; logarithms have base 10."""

    words: tuple[str, ...]
    grams: tuple[np.ndarray, ...]
    log10_p: tuple[np.ndarray, ...]
    log10_backoff: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Level:
    """The distinct n-grams of one length in the order of their ids: ``grams`` ``(count, n)``.

    ``history`` and ``suffix`` ``(count,)`` are row numbers of the level below; for single words both are 0.
    """

    grams: np.ndarray
    history: np.ndarray
    suffix: np.ndarray


@dataclass(frozen=True)
class BackoffModel:
    """A model on ``levels``, without logarithms: ``p[n-1]`` is p(w|h), and ``backoff[n-1]`` is α of the n-gram as a history,
    ``(count,)`` each.

    ``<s>`` has p 0. The levels are closed: they also list the history and the suffix of each n-gram.
    """

    words: tuple[str, ...]
    levels: tuple[Level, ...]
    p: tuple[np.ndarray, ...]
    backoff: tuple[np.ndarray, ...]

    def counts(self) -> list[int]:
        """The number of n-grams of each length."""
        return [len(level.grams) for level in self.levels]


def read_arpa(path: Path) -> Arpa:
    """Reads an ARPA file, plain or gzip (recognised by its bytes). ``<UNK>`` becomes ``<unk>``.

    Raises ConfigError for a KenLM binary, whose n-grams cannot be read back, and for any file that is not ARPA.
    """
    with _reading(path) as lines:
        return _parse(lines, _counts(lines))


def read_head(path: Path) -> tuple[list[int], tuple[str, ...]]:
    """The number of n-grams of each length in an ARPA file, and its words. Raises ConfigError as ``read_arpa``."""
    with _reading(path) as lines:
        counts = _counts(lines)
        next((line for line in lines if line.strip()), "")
        return counts, tuple(line.split()[1] for line in itertools.islice(lines, counts[0]) if len(line.split()) > 1)


@contextmanager
def _reading(path: Path) -> Iterator[Iterator[str]]:
    """The lines of an ARPA file. Errors inside the block become a ConfigError that names the file."""
    try:
        with path.open("rb") as file:
            magic = file.read(len(BINARY_MAGIC))
        if magic == BINARY_MAGIC:
            raise ConfigError(
                f"{path}: is a KenLM binary, whose n-grams cannot be read back; give the ARPA file that it was built from "
                "(.arpa or .arpa.gz; build-lm keeps one with --arpa), or the base text with --base-text"
            )
        with gzip.open(path, "rt", encoding="utf-8") if magic[:2] == b"\x1f\x8b" else path.open(encoding="utf-8") as lines:
            yield lines
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror or type(error).__name__}); expected .arpa or .arpa.gz"
        ) from None
    except (UnicodeDecodeError, EOFError, zlib.error):
        raise ConfigError(f"{path}: is cut short or not text in UTF-8; expected .arpa or .arpa.gz") from None
    except _NotArpa as error:
        raise ConfigError(f"{path}: is not an ARPA file: {error}") from None


class _NotArpa(ValueError):
    """What is wrong with the file, in words."""


def _parse(lines: Iterator[str], counts: Sequence[int]) -> Arpa:
    words: dict[str, int] = {}
    grams, log10_p, log10_backoff = [], [], []
    for n, count in enumerate(counts, start=1):
        if next((line for line in lines if line.strip()), "").strip() != f"\\{n}-grams:":
            raise _NotArpa(f"the section \\{n}-grams: does not follow")
        ids, p, backoff = np.empty((count, n), np.int64), np.empty(count), np.zeros(count)
        for row, line in enumerate(itertools.islice(lines, count)):
            fields = line.split()
            if len(fields) not in (n + 1, n + 2):
                raise _NotArpa(f"line {row + 1} of \\{n}-grams: has {len(fields)} fields")
            gram = [UNKNOWN if word == "<UNK>" else word for word in fields[1 : n + 1]]
            if n == 1:
                words.setdefault(gram[0], len(words))
            try:
                ids[row] = [words[word] for word in gram]
                p[row] = float(fields[0])
                backoff[row] = float(fields[n + 1]) if len(fields) == n + 2 else 0.0
            except (KeyError, ValueError):
                raise _NotArpa(f"line {row + 1} of \\{n}-grams: has a bad number or a word that is not in \\1-grams:") from None
        if n == 1 and len(words) != count:
            raise _NotArpa("a word is listed twice, or the section \\1-grams: is short")
        if not (np.isfinite(p).all() and np.isfinite(backoff).all() and (p <= 1e-6).all()):
            raise _NotArpa(f"\\{n}-grams: holds a number that is not a log-probability")
        grams.append(ids)
        log10_p.append(p)
        log10_backoff.append(backoff)
    if next((line for line in lines if line.strip()), "").strip() != "\\end\\":
        raise _NotArpa("\\end\\ is missing")
    return Arpa(tuple(words), tuple(grams), tuple(log10_p), tuple(log10_backoff))


def _counts(lines: Iterator[str]) -> list[int]:
    if not any(line.strip() == "\\data\\" for line in lines):
        raise _NotArpa("it has no line \\data\\")
    counts: list[int] = []
    for line in lines:
        if not line.strip():
            break
        name, _, count = line.partition("=")
        if name.split() != ["ngram", str(len(counts) + 1)] or not count.strip().isdigit():
            raise _NotArpa("the lines below \\data\\ must be like ngram 1=500")
        counts.append(int(count))
    if not counts or not counts[0]:
        raise _NotArpa("it lists no words")
    return counts


def common_levels(grams: Sequence[Sequence[np.ndarray]], order: int, words: int) -> tuple[Level, ...]:
    """The n-grams of several models together, with all their histories and suffixes, which pruned models may lack.

    ``grams`` has for each model its ``Arpa.grams``, with ids of one common vocabulary of ``words`` words.
    """
    wanted: list[np.ndarray] = []
    for n in range(order, 1, -1):
        found = [model[n - 1] for model in grams if len(model) >= n]
        longer = [wanted[-1][:, :-1], wanted[-1][:, 1:]] if wanted else []
        wanted.append(_unique(np.concatenate([np.empty((0, n), np.int64), *found, *longer])))
    levels = [Level(np.arange(words)[:, None], np.zeros(words, np.int64), np.zeros(words, np.int64))]
    for ids in reversed(wanted):
        levels.append(Level(ids, find_rows(levels, ids[:, :-1]), find_rows(levels, ids[:, 1:])))
    return tuple(levels)


def _unique(ids: np.ndarray) -> np.ndarray:
    ids = ids[np.lexsort(ids.T[::-1])]
    fresh = np.ones(len(ids), bool)
    fresh[1:] = (ids[1:] != ids[:-1]).any(axis=1)
    return ids[fresh]


def find_rows(levels: Sequence[Level], ids: np.ndarray) -> np.ndarray:
    """Rows of the n-grams ``ids`` ``(count, n)`` in ``levels[n-1]``, ``(count,)``; -1 for one that is not listed."""
    words = len(levels[0].grams)
    rows = ids[:, 0]
    for n in range(2, ids.shape[1] + 1):
        level = levels[n - 1]
        if not len(level.grams):
            return np.full(len(ids), -1)
        keys = level.history * words + level.grams[:, -1]  # rising, as the rows are in the order of their ids
        asked = np.where(rows < 0, -1, rows * words + ids[:, n - 1])
        at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
        rows = np.where(keys[at] == asked, at, -1)
    return rows


def spread(arpa: Arpa, words: Sequence[str], levels: Sequence[Level]) -> BackoffModel:
    """``arpa`` on the n-grams of ``levels``. An n-gram that it does not list gets its back-off estimate, so nothing changes.

    An unknown word has probability 0, as ``<unk>`` is a separate entry; so no sum exceeds one.
    """
    place = {word: i for i, word in enumerate(words)}
    translate = np.array([place[word] for word in arpa.words])
    ps: list[np.ndarray] = []
    backoffs: list[np.ndarray] = []
    for n, level in enumerate(levels, start=1):
        p = np.zeros(len(level.grams)) if n == 1 else backoffs[-1][level.history] * ps[-1][level.suffix]
        backoff = np.ones(len(level.grams))
        if n <= len(arpa.grams):
            rows = find_rows(levels, translate[arpa.grams[n - 1]])
            p[rows] = 10.0 ** arpa.log10_p[n - 1]
            backoff[rows] = 10.0 ** arpa.log10_backoff[n - 1]
        p[level.grams[:, -1] == place.get(BEGIN, -1)] = 0.0
        ps.append(p)
        backoffs.append(backoff)
    return BackoffModel(tuple(words), tuple(levels), tuple(ps), tuple(backoffs))


def with_backoffs(words: Sequence[str], levels: Sequence[Level], p: Sequence[np.ndarray]) -> BackoffModel:
    """The model with the probabilities ``p`` and α(h) = (1 - Σ p(w|h)) / (1 - Σ p(w|h')), with sums over the listed h w.

    So each history sums to one. If the listed words leave less than 1e-7, their probabilities are scaled to leave 1e-7. If
    all words are listed, they are scaled to sum to one.
    """
    ps = [np.array(values) for values in p]
    ps[0] /= ps[0].sum()
    backoffs = []
    predictable = np.count_nonzero(ps[0])
    for n, level in enumerate(levels[1:], start=2):
        histories = len(levels[n - 2].grams)
        predicted = ps[n - 1] > 0
        listed = np.bincount(level.history[predicted], minlength=histories)
        seen = np.bincount(level.history, ps[n - 1], histories)
        below = np.bincount(level.history, ps[n - 2][level.suffix], histories)
        complete, left = listed >= predictable, np.maximum(1 - seen, _LEAST_LEFT)
        room = np.where(complete, 1.0, 1 - left)
        scale = np.where(complete | (seen > room), room / np.where(seen > 0, seen, 1.0), 1.0)
        ps[n - 1] *= scale[level.history]
        backoffs.append(np.where(complete, 1.0, left / np.where(complete, 1.0, np.maximum(1 - below, 1e-12))))
    backoffs.append(np.ones(len(levels[-1].grams)))
    return BackoffModel(tuple(words), tuple(levels), tuple(ps), tuple(backoffs))


def write_arpa(model: BackoffModel, path: Path) -> None:
    """Writes ``model``, as gzip if the suffix is ``.gz``. Probability 0 is written as -99."""
    with gzip.open(path, "wt", encoding="utf-8") if path.suffix == ".gz" else path.open("w", encoding="utf-8") as file:
        file.write("\\data\\\n" + "".join(f"ngram {n}={count}\n" for n, count in enumerate(model.counts(), start=1)))
        for n, level in enumerate(model.levels, start=1):
            file.write(f"\n\\{n}-grams:\n")
            last = n == len(model.levels)
            for start in range(0, len(level.grams), _WRITE_LINES):
                part = slice(start, start + _WRITE_LINES)
                p = np.minimum(np.log10(np.maximum(model.p[n - 1][part], 10.0**LEAST_LOG10)), 0.0)
                backoff = np.log10(model.backoff[n - 1][part])
                file.writelines(
                    f"{a:.7g}\t{' '.join(model.words[i] for i in gram)}" + ("\n" if last else f"\t{b:.7g}\n")
                    for a, gram, b in zip(p.tolist(), level.grams[part].tolist(), backoff.tolist(), strict=True)
                )
        file.write("\n\\end\\\n")
