"""Intervals, comparisons, and the mistakes that hurt patients, against what can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dictalake.errors import ConfigError
from dictalake.evaluation.assessment import assess, describe, measure_routing, read_terms
from dictalake.evaluation.bootstrap import bootstrap_rate, compare_rates
from dictalake.evaluation.clinical import (
    ClinicalCount,
    Mistake,
    TermCount,
    Terms,
    align,
    count_clinical,
    count_terms,
    find_mistakes,
)
from dictalake.evaluation.normalise import normalise_medasr, normalise_multimed
from dictalake.evaluation.utterances import Utterance
from dictalake.evaluation.word_errors import count_errors

TERMS = Terms({"apixaban": "drugs", "left kidney": "anatomy", "kidney": "anatomy", "acute fracture": "findings"})
SPOKEN = ["no", "left", "right", "both", "two", "three", "kidney", "apixaban", "clear", "of", "the"]
WORDS = st.lists(st.sampled_from(SPOKEN), max_size=12)


def count_terms_of(reference: str, hypothesis: str) -> dict[str, TermCount]:
    return count_terms(TERMS.compare(reference, hypothesis))


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("no acute fracture", "acute fracture", {"negations": 1, "negation_errors": 1}),
        ("acute fracture", "no acute fracture", {"negations": 0, "negation_errors": 1}),
        ("no fracture with bleeding", "fracture with no bleeding", {"negations": 1, "negation_errors": 2}),
        ("without fracture", "no fracture", {"negations": 1, "negation_errors": 0}),
        ("left kidney", "right kidney", {"sides": 1, "laterality_errors": 1, "laterality_swapped": 1}),
        ("left kidney", "kidney", {"sides": 1, "laterality_errors": 1, "laterality_swapped": 0}),
        ("kidney", "left kidney", {"sides": 0, "laterality_errors": 1, "laterality_swapped": 0}),
        ("bilateral effusions", "left effusions", {"sides": 1, "laterality_errors": 1, "laterality_swapped": 1}),
        ("twenty five milligrams", "twenty nine milligrams", {"numbers": 1, "number_errors": 1}),
        ("twenty five milligrams", "twenty milligrams", {"numbers": 1, "number_errors": 1}),
        ("five milligrams", "nine milligrams of six", {"numbers": 1, "number_errors": 2}),
        ("5 mg and 2.5 mg", "5 mg and 25 mg", {"numbers": 2, "number_errors": 1}),
        ("no left kidney in two", "no left kidney in two", {"negations": 1, "sides": 1, "numbers": 1}),
    ],
)
def test_what_hurts_is_counted(reference: str, hypothesis: str, expected: dict[str, int]) -> None:
    counted = vars(count_clinical(reference, hypothesis))
    assert {name: counted[name] for name in expected} == expected
    if not any(name.endswith("errors") for name in expected):
        assert counted == vars(ClinicalCount(**expected))


@settings(deadline=None)
@given(WORDS, WORDS)
def test_counts_stay_within_what_was_said_and_equal_texts_have_no_errors(said: list[str], heard: list[str]) -> None:
    same = count_clinical(" ".join(said), " ".join(said))
    assert (same.negation_errors, same.number_errors, same.laterality_errors, same.laterality_swapped) == (0, 0, 0, 0)
    counted = count_clinical(" ".join(said), " ".join(heard))
    assert counted.negations == said.count("no")
    assert counted.sides == sum(word in ("left", "right", "both") for word in said)
    assert (
        counted.laterality_swapped
        <= counted.laterality_errors
        <= counted.sides + sum(w in ("left", "right", "both") for w in heard)
    )
    assert [one for one, _ in align(said, heard) if one is not None] == said
    assert [other for _, other in align(said, heard) if other is not None] == heard


def test_terms_are_found_where_they_were_said_and_nowhere_else() -> None:
    assert count_terms_of("apixaban for the left kidney", "apixaban for the left kidney") == {
        "drugs": TermCount(1, 1, 1),
        "anatomy": TermCount(1, 1, 1),
    }
    # one is misheard, another invented, and of "left kidney" the half is no find
    assert count_terms_of("apixaban for the left kidney", "a pixel band for the right kidney acute fracture") == {
        "drugs": TermCount(1, 0, 0),
        "anatomy": TermCount(1, 1, 0),
        "findings": TermCount(0, 1, 0),
    }


def test_terms_are_named_with_what_became_of_them() -> None:
    assert TERMS.compare("apixaban for the left kidney", "the kidney for apixaban") == [
        ("apixaban", "drugs", "missed"),
        ("left kidney", "anatomy", "missed"),
        ("kidney", "anatomy", "added"),
        ("apixaban", "drugs", "added"),
    ]


def test_mistakes_have_their_place_in_the_alignment() -> None:
    pairs = align(["no", "left", "effusion", "of", "twenty", "five"], ["right", "effusion", "of", "twenty", "nine"])
    assert pairs[:3] == [("no", None), ("left", "right"), ("effusion", "effusion")]
    assert find_mistakes(pairs) == [
        Mistake("negation", 0, 1),
        Mistake("laterality", 1, 2, is_swap=True),
        Mistake("number", 4, 6),
    ]


@settings(deadline=None)
@given(WORDS, st.data())
def test_a_swapped_side_is_one_error_and_one_swap(said: list[str], data: st.DataObject) -> None:
    said = [*said, "left", "kidney"]
    place = data.draw(st.sampled_from([index for index, word in enumerate(said) if word in ("left", "right")]))
    heard = [*said[:place], {"left": "right", "right": "left"}[said[place]], *said[place + 1 :]]
    counted = count_clinical(" ".join(said), " ".join(heard))
    assert (counted.laterality_errors, counted.laterality_swapped) == (1, 1)
    assert (counted.negation_errors, counted.number_errors) == (0, 0)


@settings(deadline=None)
@given(WORDS, WORDS)
def test_the_alignment_has_the_errors_that_are_counted(said: list[str], heard: list[str]) -> None:
    pairs = align(said, heard)
    errors = count_errors([(" ".join(said), " ".join(heard))])
    assert sum(None not in pair and pair[0] != pair[1] for pair in pairs) == errors.substitutions
    assert sum(other is None for _, other in pairs) == errors.deletions
    assert sum(one is None for one, _ in pairs) == errors.insertions


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("no left effusion", "right effusion", [("no", None), ("left", "right"), ("effusion", "effusion")]),
        ("five", "of the six", [(None, "of"), (None, "the"), ("five", "six")]),
        ("apixaban", "a pixaban", [(None, "a"), ("apixaban", "pixaban")]),
    ],
)
def test_words_of_one_kind_and_words_spelt_alike_are_aligned(
    reference: str, hypothesis: str, expected: list[tuple[str | None, str | None]]
) -> None:
    assert align(reference.split(), hypothesis.split()) == expected


def test_a_term_at_another_place_is_no_find() -> None:
    count = count_terms_of("apixaban was stopped and the patient went home", "was stopped and the patient went home apixaban")
    assert count["drugs"] == TermCount(1, 1, 0)


@settings(deadline=None)
@given(WORDS, WORDS)
def test_recall_and_precision_are_shares(said: list[str], heard: list[str]) -> None:
    for count in count_terms_of(" ".join(said), " ".join(heard)).values():
        assert 0 <= count.found <= min(count.said, count.heard)


def test_an_empty_list_of_terms_is_refused() -> None:
    with pytest.raises(ConfigError, match="--terms: the file holds no term"):
        read_terms({"mine": "# nothing"}, normalise_medasr)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 30)), min_size=1, max_size=40))
def test_interval_holds_the_rate_and_a_system_does_not_differ_from_itself(counts: list[tuple[int, int]]) -> None:
    errors, words = (np.array(column) for column in zip(*counts, strict=True))
    interval = bootstrap_rate(errors, words, resamples=200)
    assert interval.low <= interval.value <= interval.high
    assert interval.value == pytest.approx(errors.sum() / words.sum())
    same = compare_rates(errors, errors, words, resamples=200)
    assert (same.delta.value, same.p_value) == (0, 1)


def test_interval_is_as_wide_as_theory_says() -> None:
    # 400 recordings of 10 words, each with one error or none by a fair coin: the rate's standard error is 0.5 / 10 / sqrt(400)
    errors = np.random.default_rng(0).integers(0, 2, 400)
    interval = bootstrap_rate(errors, np.full(400, 10))
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.05 / 20, rel=0.1)


def test_a_difference_that_is_the_same_in_each_recording_is_significant_and_noise_is_not() -> None:
    rng = np.random.default_rng(1)
    words, first = np.full(200, 20), rng.integers(0, 10, 200)
    assert compare_rates(first, first + 1, words).p_value < 0.001
    assert compare_rates(first, rng.permutation(first), words).p_value > 0.05


def test_the_same_sign_in_few_recordings_is_no_proof() -> None:
    # of the four ways in which signs can fall on two recordings two are as far out: p is 1/2, of ten recordings 2/1024
    few, many = np.array([4, 6]), np.full(10, 5)
    assert compare_rates(few, few - 2, np.full(2, 10), resamples=20_000).p_value == pytest.approx(0.5, abs=0.02)
    assert compare_rates(many, many - 1, np.full(10, 10), resamples=200_000).p_value == pytest.approx(2 / 1024, abs=5e-4)


def test_interval_of_a_difference_holds_it_and_turns_with_the_systems() -> None:
    rng = np.random.default_rng(2)
    words, first, second = np.full(300, 20), rng.binomial(20, 0.1, 300), rng.binomial(20, 0.08, 300)
    there, back = compare_rates(first, second, words), compare_rates(second, first, words)
    assert there.delta.value == pytest.approx((second.sum() - first.sum()) / 6000)
    assert there.delta.low < there.delta.value < there.delta.high < 0
    assert (back.delta.low, back.delta.high) == pytest.approx((-there.delta.high, -there.delta.low))
    assert back.p_value == there.p_value < 0.05  # as the interval without 0 says


def test_without_words_there_is_no_rate() -> None:
    nothing = np.array([0])
    assert math.isnan(bootstrap_rate(nothing, nothing).value)
    assert math.isnan(compare_rates(nothing, nothing, nothing).p_value)


def make(reference: str, hypothesis: str | None, confidence: float | None = None, speaker: str = "s") -> Utterance:
    return Utterance(reference, reference, hypothesis, {"speaker": speaker}, confidence)


def test_figures_of_a_system_are_those_of_its_recordings_together() -> None:
    utterances = [make("no left kidney", "left kidney"), make("two kidneys", None), make("clear", "clear")]
    figures = describe([assess(one, normalise_medasr, TERMS) for one in utterances])
    assert (figures["reference_words"], figures["deletions"], figures["failed"]) == (6, 3, 1)
    assert figures["wer"] == pytest.approx(0.5)
    assert figures["cer"] == pytest.approx((3 + 11) / (14 + 11 + 5))
    assert (figures["negation_errors"], figures["number_errors"], figures["laterality_errors"]) == (1, 1, 0)
    assert (figures["term_recall"], figures["term_precision"]) == (1.0, 1.0)


@settings(deadline=None)
@given(WORDS, WORDS)
def test_a_character_rate_of_0_means_equal_texts(said: list[str], heard: list[str]) -> None:
    one = assess(make(" ".join(said), " ".join(heard)), normalise_medasr, TERMS)
    assert (one.character_errors == 0) == (said == heard) == (one.word_errors == 0)


def test_recordings_of_one_speaker_are_drawn_together() -> None:
    # two speakers, one with all words wrong: over speakers the rate may be anything from 0 to 1, over recordings not
    utterances = [make(f"a{n}", "x" if n % 2 else f"a{n}", speaker=str(n % 2)) for n in range(100)]
    assessed = [assess(one, normalise_medasr, TERMS) for one in utterances]
    alone, together = describe(assessed), describe(assessed, assessed, cluster="speaker")
    assert alone["wer"] == together["wer"] == 0.5
    assert (alone["clusters"], together["clusters"]) == (100, 2)
    assert 0.35 < alone["wer_low"] < alone["wer_high"] < 0.65
    assert (together["wer_low"], together["wer_high"]) == (0, 1)
    assert together["difference"] == {"wer": 0, "wer_low": None, "wer_high": None, "p_value": 1}  # two can show nothing
    assert describe(assessed, cluster="ward")["clusters"] == 100  # a column that no recording has


def test_least_confident_transcripts_go_first_and_failed_ones_before_them() -> None:
    utterances = [make("a b", "a b", 0.9), make("a b", "x y", 0.2), make("a b", None)]
    routing = measure_routing([assess(one, normalise_medasr, TERMS) for one in utterances])
    assert routing is not None
    by_share = {point["share"]: (point["wer_of_rest"], point["errors_caught"]) for point in routing}
    assert by_share[0.0] == pytest.approx((4 / 6, 0))
    assert by_share[0.05] == pytest.approx((0.5, 0.5))  # one of three is the least that can be sent
    assert by_share[0.5] == by_share[1.0] == pytest.approx((0.0, 1.0))


def test_multimed_deletes_punctuation_and_spoken_punctuation() -> None:
    assert normalise_multimed("Follow-up, please {period} [FINDINGS] 54-year-old.") == "followup please findings 54yearold"
    assert normalise_multimed("no fracture period") == normalise_multimed("No fracture.") == "no fracture"


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 40)), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_an_interval_and_the_p_beside_it_never_contradict_each_other(counts: list[tuple[int, int, int]]) -> None:
    first, second, words = (np.array(column) for column in zip(*counts, strict=True))
    compared = compare_rates(first, second, words, resamples=400)
    assert (compared.delta.low <= 0 <= compared.delta.high) == (compared.p_value > 0.05)
    assert compared.delta.low <= compared.delta.value <= compared.delta.high


def test_five_recordings_can_show_no_difference_and_six_can() -> None:
    def compare(count: int) -> tuple[bool, float]:
        compared = compare_rates(np.full(count, 5), np.zeros(count, int), np.full(count, 10))
        return math.isfinite(compared.delta.high), compared.p_value

    (five, p_of_five), (six, p_of_six) = compare(5), compare(6)
    assert (five, six) == (False, True)
    assert p_of_six < 0.05 < p_of_five
