"""Mixing and pruning back-off models: by hand on toys, and as laws on models of small random corpora."""

from __future__ import annotations

import gzip
import math
import tempfile
from collections import Counter
from pathlib import Path

import kenlm
import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from dictalake.errors import ConfigError
from dictalake.training.arpa import BEGIN, END, UNKNOWN, BackoffModel, read_arpa, read_head, write_arpa
from dictalake.training.interpolation import LEAST_WEIGHT, alone, best_base_weight, interpolate, token_probabilities
from dictalake.training.perplexity import measure
from dictalake.training.pruning import history_probabilities, prune, relative_entropies

Ngram = tuple[str, ...]


class Listed:
    """A back-off model as the format defines it, word by word: what the arrays are compared with."""

    def __init__(self, p: dict[Ngram, float], backoff: dict[Ngram, float]) -> None:
        self.p_listed, self.backoff = p, backoff

    @classmethod
    def read(cls, path: Path) -> Listed:
        p, backoff = {}, {}
        for line in path.read_text(encoding="utf-8").splitlines():
            if len(fields := line.split("\t")) > 1:
                gram = tuple(fields[1].split())
                p[gram] = 0.0 if gram == (BEGIN,) else 10 ** float(fields[0])
                backoff[gram] = 10 ** float(fields[2]) if len(fields) == 3 else 1.0
        return cls(p, backoff)

    @classmethod
    def estimate(cls, lines: list[str], order: int) -> Listed:
        """Absolute discounting by a half, with back-off; single words with one added to each count."""
        texts = [(BEGIN, *line.split(), END) for line in lines]
        counts = [Counter(text[i : i + n] for text in texts for i in range(len(text) - n + 1)) for n in range(1, order + 1)]
        words = [word for (word,) in counts[0] if word != BEGIN] + [UNKNOWN]
        total = sum(counts[0][(word,)] + 1 for word in words)
        model = cls({(word,): (counts[0][(word,)] + 1) / total for word in words} | {(BEGIN,): 0.0}, {})
        for longer in counts[1:]:
            of_history: Counter[Ngram] = Counter()
            for gram, count in longer.items():
                of_history[gram[:-1]] += count
            new = {gram: (count - 0.5) / of_history[gram[:-1]] for gram, count in longer.items()}
            for history in of_history:
                listed = [gram for gram in new if gram[:-1] == history]
                below = sum(model.p(gram[1:-1], gram[-1]) for gram in listed)
                model.backoff[history] = (1 - sum(new[gram] for gram in listed)) / (1 - below)
            model.p_listed |= new
        return model

    def p(self, history: Ngram, word: str) -> float:
        if (*history, word) in self.p_listed:
            return self.p_listed[(*history, word)]
        return self.backoff.get(history, 1.0) * self.p(history[1:], word) if history else 0.0

    def words(self) -> list[str]:
        return [gram[0] for gram in self.p_listed if len(gram) == 1 and gram[0] != BEGIN]

    def write(self, path: Path) -> Path:
        order = max(map(len, self.p_listed))
        by_length = [[gram for gram in self.p_listed if len(gram) == n] for n in range(1, order + 1)]
        lines = ["\\data\\", *(f"ngram {n}={len(grams)}" for n, grams in enumerate(by_length, start=1)), ""]
        for n, grams in enumerate(by_length, start=1):
            lines += [f"\\{n}-grams:"]
            for gram in grams:
                p = -99 if gram == (BEGIN,) else math.log10(self.p_listed[gram])
                backoff = "" if n == order else f"\t{math.log10(self.backoff.get(gram, 1.0)):.9g}"
                lines.append(f"{p:.9g}\t{' '.join(gram)}{backoff}")
            lines += [""]
        path.write_text("\n".join([*lines, "\\end\\", ""]), encoding="utf-8")
        return path


def written(model: BackoffModel, folder: Path) -> Listed:
    write_arpa(model, folder / "written.arpa")
    return Listed.read(folder / "written.arpa")


def worst_sum(model: Listed) -> float:
    """Farthest distance from one of Σ p(w|h) over the vocabulary, of all histories that are listed, and of none."""
    histories = {(), *(gram for gram in model.p_listed if gram[-1] != END)}
    return max(abs(sum(model.p(history, word) for word in model.words()) - 1) for history in histories)


corpora = st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6).map(" ".join), min_size=1, max_size=8)
other_corpora = st.lists(st.lists(st.sampled_from("bcdef"), min_size=1, max_size=6).map(" ".join), min_size=1, max_size=8)
orders = st.integers(2, 4)

USER = Listed({("a",): 0.5, ("b",): 0.25, (END,): 0.25, (BEGIN,): 0.0, ("a", "b"): 0.8}, {("a",): 0.2 / 0.75})
BASE = Listed({("a",): 0.2, ("b",): 0.2, ("c",): 0.4, (END,): 0.2, (BEGIN,): 0.0, ("b", "c"): 0.5}, {("b",): 0.5 / 0.6})


def test_mixture_of_two_toys_is_what_the_hand_computes(tmp_path: Path) -> None:
    user, base = (read_arpa(model.write(tmp_path / f"{i}.arpa")) for i, model in enumerate((USER, BASE)))
    mixed = written(interpolate(user, base, 0.25), tmp_path)
    assert mixed.p_listed == pytest.approx(
        {
            ("a",): 0.75 * 0.5 + 0.25 * 0.2,
            ("b",): 0.75 * 0.25 + 0.25 * 0.2,
            ("c",): 0.25 * 0.4,
            (END,): 0.75 * 0.25 + 0.25 * 0.2,
            (BEGIN,): 0.0,
            ("a", "b"): 0.75 * 0.8 + 0.25 * 0.2,
            ("b", "c"): 0.25 * 0.5,
        },
        rel=1e-6,
    )
    assert mixed.backoff[("a",)] == pytest.approx((1 - 0.65) / (1 - 0.2375), rel=1e-6)
    assert mixed.backoff[("b",)] == pytest.approx((1 - 0.125) / (1 - 0.1), rel=1e-6)
    assert mixed.backoff[("c",)] == 1.0


@settings(max_examples=60, deadline=None)
@given(lines=corpora, other=other_corpora, order=orders, other_order=orders, weight=st.floats(0.01, 0.99))
def test_mixture_is_the_weighted_mean_on_all_that_is_listed_and_sums_to_one(
    lines: list[str], other: list[str], order: int, other_order: int, weight: float
) -> None:
    user, base = Listed.estimate(lines, order), Listed.estimate(other, other_order)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = [read_arpa(model.write(folder / f"{i}.arpa")) for i, model in enumerate((user, base))]
        mixed = written(interpolate(models[0], models[1], weight), folder)
    assert set(mixed.p_listed) == set(user.p_listed) | set(base.p_listed)
    for gram, p in mixed.p_listed.items():
        expected = (1 - weight) * known_p(user, gram) + weight * known_p(base, gram)
        assert p == pytest.approx(expected, rel=2e-6, abs=1e-12)
    assert worst_sum(mixed) < 1e-5


def known_p(model: Listed, gram: Ngram) -> float:
    """A history is cut after its last word that ``model`` does not know, as any n-gram reader does."""
    history = gram[:-1]
    for i, word in enumerate(gram[:-1]):
        if (word,) not in model.p_listed:
            history = gram[i + 1 : -1]
    return model.p(history, gram[-1])


@settings(max_examples=30, deadline=None)
@given(lines=corpora, other=other_corpora, said=corpora)
def test_kenlm_reads_the_mixture_as_it_is_meant(lines: list[str], other: list[str], said: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [Listed.estimate(text, 3).write(folder / f"{i}.arpa") for i, text in enumerate((lines, other))]
        mixed = written(interpolate(read_arpa(paths[0]), read_arpa(paths[1]), 0.4), folder)
        model = kenlm.Model(str(folder / "written.arpa"))
    line = " ".join(word for word in said[0].split() if (word,) in mixed.p_listed)
    text = (BEGIN, *line.split(), END)
    expected = [mixed.p(known_history(mixed, text[max(0, i - 2) : i]), text[i]) for i in range(1, len(text))]
    assert token_probabilities(model, [line]) == pytest.approx(expected, rel=1e-4)


def known_history(model: Listed, history: Ngram) -> Ngram:
    while history and history not in model.p_listed:
        history = history[1:]
    return history


@pytest.mark.parametrize(
    ("share_of_a", "expected"), [(0.5, 0.5), (0.65, 0.25), (0.35, 0.75), (0.9, LEAST_WEIGHT), (0.1, 1 - LEAST_WEIGHT)]
)
def test_weight_is_the_known_optimum(share_of_a: float, expected: float) -> None:
    # The text is best predicted where the mixture gives "a" its share: 0.8 (1 - λ) + 0.2 λ.
    is_a = np.arange(1000) < 1000 * share_of_a
    weight = best_base_weight(np.where(is_a, 0.8, 0.2), np.where(is_a, 0.2, 0.8))
    assert weight == pytest.approx(expected, abs=1e-3)


@settings(max_examples=50, deadline=None)
@given(p=st.lists(st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)), min_size=1, max_size=30))
def test_no_other_weight_makes_the_text_more_likely(p: list[tuple[float, float]]) -> None:
    user, base = np.array(p).T
    grid = np.linspace(LEAST_WEIGHT, 1 - LEAST_WEIGHT, 200)
    likelihoods = np.log(np.outer(grid, base) + np.outer(1 - grid, user)).mean(axis=1)
    found = best_base_weight(user, base)
    assert np.log(found * base + (1 - found) * user).mean() >= likelihoods.max() - 1e-3


def test_tokens_that_neither_model_knows_do_not_count_for_the_weight() -> None:
    user, base = np.array([0.8, 0.2, 0.0]), np.array([0.2, 0.8, 0.0])
    assert best_base_weight(user, base) == pytest.approx(0.5)
    with pytest.raises(ConfigError, match="--dev: neither model knows a single piece"):
        best_base_weight(user[2:], base[2:])


@settings(max_examples=40, deadline=None)
@given(lines=corpora, order=orders)
def test_histories_are_as_frequent_as_in_text_that_the_model_makes(lines: list[str], order: int) -> None:
    estimated = Listed.estimate(lines, order)
    with tempfile.TemporaryDirectory() as name:
        model = alone(read_arpa(estimated.write(Path(name) / "lm.arpa")))
    expected = history_shares(estimated)
    for level, shares in zip(model.levels, history_probabilities(model), strict=False):
        for ids, share in zip(level.grams.tolist(), shares.tolist(), strict=True):
            gram = tuple(model.words[i] for i in ids)
            assert share == pytest.approx(expected.get(gram, 0.0), rel=0.02, abs=1e-3)


def history_shares(model: Listed) -> dict[Ngram, float]:
    """Visits of each state until the end of a text, by solving the chain's equations; then of each suffix of the states."""
    order = max(map(len, model.p_listed))
    states = [gram for gram in model.p_listed if len(gram) < order and gram[-1] != END]
    moves = np.zeros((len(states), len(states)))
    for i, state in enumerate(states):
        for word in set(model.words()) - {END}:
            after = known_history(model, (*state, word)[-(order - 1) :])
            moves[i, states.index(after)] += model.p(state, word)
    start = np.array([float(state == (BEGIN,)) for state in states])
    visits = np.linalg.solve((np.eye(len(states)) - moves).T, start)
    shares: Counter[Ngram] = Counter()
    for state, count in zip(states, visits.tolist(), strict=True):
        for first in range(len(state)):
            shares[state[first:]] += count / visits.sum()
    return shares


@settings(max_examples=40, deadline=None)
@given(lines=corpora, order=orders)
def test_loss_of_an_ngram_is_the_relative_entropy_to_the_model_without_it(lines: list[str], order: int) -> None:
    estimated = Listed.estimate(lines, order)
    with tempfile.TemporaryDirectory() as name:
        model = alone(read_arpa(estimated.write(Path(name) / "lm.arpa")))
    for n in range(2, len(model.levels) + 1):
        losses = relative_entropies(model, n, np.ones(len(model.levels[n - 2].grams)))
        for ids, loss in zip(model.levels[n - 1].grams.tolist(), losses.tolist(), strict=True):
            gram = tuple(model.words[i] for i in ids)
            assert loss == pytest.approx(loss_by_enumeration(estimated, gram), rel=1e-3, abs=1e-6)


def loss_by_enumeration(model: Listed, gram: Ngram) -> float:
    """Relative entropy of the words after ``gram``'s history, with and without ``gram``."""
    history = gram[:-1]
    others = [other for other in model.p_listed if other[:-1] == history and len(other) == len(gram) and other != gram]
    left = 1 - sum(model.p_listed[other] for other in others)
    below = 1 - sum(model.p(other[1:-1], other[-1]) for other in others)
    rest = {key: p for key, p in model.p_listed.items() if key != gram}
    without = Listed(rest, model.backoff | {history: left / below})
    p = [(model.p(history, word), without.p(history, word)) for word in model.words()]
    return sum(before * math.log(before / after) for before, after in p)


@settings(max_examples=40, deadline=None)
@given(lines=corpora, order=orders, threshold=st.sampled_from([1e-4, 1e-3, 1e-2, 3e-2]))
def test_pruned_model_sums_to_one_and_keeps_what_it_lists(lines: list[str], order: int, threshold: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = alone(read_arpa(Listed.estimate(lines, order).write(folder / "lm.arpa")))
        whole = written(model, folder)
        try:
            pruned = written(prune(model, threshold), folder)
        except ConfigError:  # only single words are left
            reject()
    assert worst_sum(pruned) < 1e-5
    assert {gram: whole.p_listed[gram] for gram in pruned.p_listed} == pytest.approx(pruned.p_listed, rel=1e-5)
    for gram in pruned.p_listed:
        assert len(gram) == 1 or {gram[:-1], gram[1:]} <= set(pruned.p_listed)


def test_pruning_drops_what_backing_off_says_as_well_and_keeps_what_it_does_not(tmp_path: Path) -> None:
    # p(b|a) is just what backing off would give, p(a|b) is far from it.
    toy = Listed(
        {("a",): 0.4, ("b",): 0.4, (END,): 0.2, (BEGIN,): 0.0, ("a", "b"): 0.4, ("b", "a"): 0.9},
        {("a",): 1.0, ("b",): 0.1 / 0.6},
    )
    pruned = written(prune(alone(read_arpa(toy.write(tmp_path / "lm.arpa"))), 1e-3), tmp_path)
    assert [gram for gram in pruned.p_listed if len(gram) == 2] == [("b", "a")]
    # Without p(a|b) = 0.9 too there is nothing left but words.
    with pytest.raises(ConfigError, match=r"--prune-threshold 0.9: leaves single words only"):
        prune(alone(read_arpa(tmp_path / "lm.arpa")), 0.9)


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.0, math.nan])
def test_impossible_threshold_and_weight_are_refused(tmp_path: Path, threshold: float) -> None:
    toy = read_arpa(USER.write(tmp_path / "lm.arpa"))
    with pytest.raises(ConfigError, match=r"--prune-threshold .* must be above 0 and below 1"):
        prune(alone(toy), threshold)
    with pytest.raises(ConfigError, match=r"--base-weight .* must be above 0 and below 1"):
        interpolate(toy, toy, threshold)


def test_pruning_needs_to_know_where_texts_begin_and_end(tmp_path: Path) -> None:
    toy = Listed({("a",): 0.5, ("b",): 0.5, ("a", "b"): 0.8}, {("a",): 0.4})
    with pytest.raises(ConfigError, match="needs a model that knows <s> and </s>"):
        prune(alone(read_arpa(toy.write(tmp_path / "lm.arpa"))), 1e-3)


def test_model_whose_suffixes_were_pruned_away_is_read_all_the_same(tmp_path: Path) -> None:
    # As SRILM prunes: "a b c" is listed, "b c" is not; p(c|b) is α(b) p(c).
    toy = Listed(
        {("a",): 0.3, ("b",): 0.3, ("c",): 0.2, (END,): 0.2, (BEGIN,): 0.0, ("a", "b"): 0.6, ("a", "b", "c"): 0.7},
        {("a",): 0.4 / 0.7, ("a", "b"): 0.3 / 0.8},
    )
    read = written(alone(read_arpa(toy.write(tmp_path / "lm.arpa"))), tmp_path)
    assert read.p_listed == pytest.approx(toy.p_listed | {("b", "c"): 0.2})
    assert worst_sum(read) < 1e-6


def test_history_with_all_words_listed_still_sums_to_one(tmp_path: Path) -> None:
    toy = Listed(
        {("a",): 0.5, (END,): 0.5, (BEGIN,): 0.0, ("a", "a"): 0.3, ("a", END): 0.6, (BEGIN, "a"): 0.99999999},
        {("a",): 1.0, (BEGIN,): 1.0},
    )
    read = written(alone(read_arpa(toy.write(tmp_path / "lm.arpa"))), tmp_path)
    assert read.p_listed[("a", "a")] == pytest.approx(0.3 / 0.9)
    assert worst_sum(read) < 1e-6


def test_packed_file_is_read_and_written_as_the_plain_one(tmp_path: Path) -> None:
    model = alone(read_arpa(BASE.write(tmp_path / "lm.arpa")))
    write_arpa(model, tmp_path / "again.arpa.gz")
    write_arpa(model, tmp_path / "again.arpa")
    assert gzip.decompress((tmp_path / "again.arpa.gz").read_bytes()) == (tmp_path / "again.arpa").read_bytes()
    assert read_head(tmp_path / "again.arpa.gz") == ([5, 1], ("a", "b", "c", END, BEGIN))
    assert read_arpa(tmp_path / "again.arpa.gz").words == ("a", "b", "c", END, BEGIN)


GOOD = "\\data\\\nngram 1=2\nngram 2=1\n\n\\1-grams:\n-0.3\ta\t-0.1\n-0.3\t</s>\n\n\\2-grams:\n-0.2\ta </s>\n\n\\end\\\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"mmap lm http://kheafield.com/code format version 5\n\0", "is a KenLM binary, whose n-grams cannot be read back"),
        (None, r"cannot be read \(No such file or directory\)"),
        (b"no acute fracture", r"is not an ARPA file: it has no line \\data\\"),
        (b"\xff\xfe\x00", "is cut short or not text in UTF-8"),
        (gzip.compress(GOOD.encode(), mtime=0)[:-12], "is cut short or not text in UTF-8"),
        (GOOD.replace("2=1", "2=x").encode(), "the lines below .* must be like ngram 1=500"),
        (GOOD.replace("2=1", "3=1").encode(), "the lines below .* must be like ngram 1=500"),
        (GOOD.replace("-0.2", "nan").encode(), "holds a number that is not a log-probability"),
        (GOOD.replace("-0.2", "0.2").encode(), "holds a number that is not a log-probability"),
        (GOOD.replace("a </s>", "b </s>").encode(), r"line 1 of .2-grams: has a bad number or a word that is not in"),
        (GOOD.replace("a </s>", "a").encode(), r"line 1 of .2-grams: has 2 fields"),
        (GOOD.replace("1=2", "1=3").encode(), r"line 3 of .1-grams: has 0 fields"),
        (GOOD.replace("-0.3\t</s>", "-0.3\ta").encode(), "a word is listed twice"),
        (GOOD.replace("\\end\\", "").encode(), "is missing"),
        (GOOD.split("\\2-grams")[0].encode(), "does not follow"),
    ],
)
def test_file_that_is_no_arpa_is_refused_with_the_reason(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "lm.arpa").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_arpa(tmp_path / "lm.arpa")


def test_perplexity_is_what_the_hand_computes(tmp_path: Path) -> None:
    model = kenlm.Model(str(BASE.write(tmp_path / "lm.arpa")))
    # p(b) p(c|b) p(</s>) and p(a) p(unknown) p(</s>); KenLM gives an unknown word 10^-100 if there is no <unk>.
    found = measure(model, ["b c", "a x"], words=3)
    known = 0.2 * 0.5 * 0.2 * 0.2 * 0.2
    assert (found.pieces, found.words, found.lines, found.unknown) == (4, 3, 2, 1)
    assert found.per_known_piece == pytest.approx(known ** (-1 / 5), rel=1e-5)
    assert found.per_piece == pytest.approx((known * 1e-100) ** (-1 / 6), rel=1e-4)
    assert found.per_word == pytest.approx((known * 1e-100) ** (-1 / 5), rel=1e-4)
    alone_line = measure(model, ["b c"], words=2)
    assert alone_line.per_piece == pytest.approx(model.perplexity("b c"))
    with pytest.raises(ConfigError, match="--held-out: no dictation is left"):
        measure(model, [], words=0)
