"""Hotwords: terms of any number of pieces and words are favoured, as far as the sound bears it."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dictalake import logs
from dictalake.acoustic.sparse import sparsify
from dictalake.config.sections import Decoding
from dictalake.decoding.base import open_decoder
from dictalake.decoding.hotword_check import drop_unsupported, log_likelihood
from dictalake.decoding.hotwords import (
    Hotword,
    HotwordList,
    HotwordScorer,
    find_hotwords,
    fold,
    read_hotwords,
    warn_of_hotwords,
)
from dictalake.decoding.spoken_numbers import spell_integer
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.errors import ConfigError
from dictalake.records import Emissions, Piece
from dictalake.transcript.number_words import read_cardinal
from tests.models import write_arpa

PIECES = [
    "<pad>",
    "</s>",
    "<unk>",
    "▁a",
    "▁pi",
    "▁pixel",
    "▁api",
    "x",
    "a",
    "ban",
    "band",
    "▁left",
    "▁ne",
    "phro",
    "stomy",
    "▁",
]
VOCABULARY = Vocabulary.from_pieces(PIECES, blank_id=0)
WORDS = VOCABULARY.lm_words()


def spell(*pieces: str) -> str:
    """A beam's text in the search's own writing."""
    return " ".join(WORDS[PIECES.index(piece)] for piece in pieces)


def hear(*frames: dict[str, float]) -> Emissions:
    """What a model hears, with a sure blank after each frame."""
    probabilities = np.full((2 * len(frames), len(PIECES)), 1e-6)
    probabilities[1::2, 0] = 1.0
    for row, heard in zip(probabilities[::2], frames, strict=True):
        for piece, share in heard.items():
            row[PIECES.index(piece)] = share
    return sparsify(np.log(probabilities / probabilities.sum(axis=1, keepdims=True)), -6.0, 0.999, 0)


# Heard: "a pixelaband". What was said: "apixaban".
MISHEARD = hear({"▁a": 0.6, "▁api": 0.4}, {"▁pixel": 0.55, "x": 0.45}, {"a": 0.5, "▁": 0.5}, {"band": 0.6, "ban": 0.4})


def read(emissions: Emissions, hotwords: Path | None, **keys: object) -> str:
    decoding = Decoding.model_validate({"lm": None, "hotwords": hotwords and str(hotwords), **keys})
    return VOCABULARY.text_of(piece.text for piece in open_decoder(decoding, VOCABULARY).decode(emissions)[0].pieces)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_term_of_many_pieces_is_heard_with_the_list_and_not_without(tmp_path: Path) -> None:
    hotwords = write(tmp_path / "drugs.txt", "# anticoagulants", "", "apixaban")
    assert read(MISHEARD, None) == "a pixelaband"
    assert read(MISHEARD, hotwords) == "apixaban"


def test_text_flips_as_the_weight_grows(tmp_path: Path) -> None:
    hotwords = write(tmp_path / "drugs.txt", "apixaban")
    hypotheses = [read(MISHEARD, hotwords, hotword_weight=weight) == "apixaban" for weight in (0.0, 0.05, 0.5, 3.0)]
    assert hypotheses == sorted(hypotheses)
    assert (hypotheses[0], hypotheses[-1]) == (False, True)


def test_a_weight_in_the_file_counts(tmp_path: Path) -> None:
    assert read(MISHEARD, write(tmp_path / "a.txt", "apixaban\t0.1"), hotword_weight=0.1) != "apixaban"
    assert read(MISHEARD, write(tmp_path / "b.txt", "apixaban\t5"), hotword_weight=0.1) == "apixaban"


def test_hotwords_work_beside_a_language_model_over_pieces(tmp_path: Path) -> None:
    lm = write_arpa(tmp_path / "lm.arpa", {WORDS[i]: -1.0 for i in WORDS}, {("#a", "#pixel"): -0.1})
    hotwords = write(tmp_path / "drugs.txt", "apixaban")
    assert read(MISHEARD, None, lm=lm).startswith("a pixel")
    assert read(MISHEARD, hotwords, lm=lm) == "apixaban"


def test_a_term_that_nobody_said_is_not_invented(tmp_path: Path) -> None:
    # "▁ne" is hardly to be heard, and the rest of "nephrostomy" not at all.
    emissions = hear({"▁left": 0.99}, {"▁a": 0.9, "▁ne": 0.1}, {"ban": 0.98, "phro": 0.02}, {"a": 0.98, "stomy": 0.02})
    hotwords = write(tmp_path / "devices.txt", "left nephrostomy", "nephrostomy")
    keys = {"hotword_weight": 3.0, "token_min_logp": -7.0}
    assert read(emissions, hotwords, **keys) == read(emissions, None) == "left abana"
    assert read(emissions, hotwords, **keys, hotword_guard=100.0) == "left nephrostomy"  # what the guard prevents


def test_scores_of_a_reading_add_up(tmp_path: Path) -> None:
    hotwords = write(tmp_path / "drugs.txt", "apixaban")
    decoding = Decoding.model_validate({"lm": None, "hotwords": str(hotwords), "hotword_weight": 0.5})
    best = open_decoder(decoding, VOCABULARY).decode(MISHEARD)[0]
    assert best.hotword_score == pytest.approx(0.5 * len("apixaban"))
    assert best.lm_score == pytest.approx(0.0, abs=1e-6)
    assert best.acoustic_score == pytest.approx(math.log(0.4 * 0.45 * 0.5 * 0.4), abs=0.05)


# -- the bonus ---------------------------------------------------------------------------------------------------------


def make_scorer(*terms: str, weight: float = 1.0) -> HotwordScorer:
    return HotwordScorer([Hotword(term) for term in terms], weight, VOCABULARY)


def test_bonus_grows_letter_by_letter_and_is_taken_back_when_the_text_goes_on_otherwise() -> None:
    scorer = make_scorer("apixaban")
    said = ["▁api", "x", "a", "ban"]
    assert [scorer.score(spell(*said[:n])) for n in range(1, 5)] == [3, 4, 5, 8]
    assert scorer.score(spell("▁api", "x", "a", "band")) == 0
    assert scorer.score(spell("▁api", "x", "▁left")) == 0


def test_a_term_begins_and_ends_where_words_do() -> None:
    scorer = make_scorer("ban", "pi")
    assert scorer.final_score(spell("▁a", "ban")) == 0  # "aban"
    assert scorer.final_score(spell("▁pi", "x")) == 0
    assert scorer.final_score(spell("▁pi", "▁left")) == 2
    assert scorer.final_score(spell("▁left", "▁pi")) == 2


def test_it_does_not_matter_how_the_model_cuts_a_term_into_pieces() -> None:
    scorer = make_scorer("api left")
    assert scorer.final_score(spell("▁api", "▁left")) == scorer.final_score(spell("▁a", "x")) + 7
    assert scorer.final_score(spell("▁", "a", "▁left")) == 0


def test_the_first_word_of_a_recording_counts_where_letters_have_no_gap_before_it() -> None:
    letters = Vocabulary.from_pieces(["<pad>", "|", "L", "E", "F", "T"], blank_id=0, word_delimiter="|")
    scorer = HotwordScorer([Hotword("left")], 1.0, letters)
    said = [letters.lm_words()[i] for i in (2, 3, 4, 5)]
    assert scorer.final_score(" ".join(said)) == 4
    assert scorer.final_score(" ".join([letters.lm_words()[1], *said])) == 4


def test_a_term_of_several_words_counts_as_a_whole_and_the_longer_of_two_wins() -> None:
    scorer = make_scorer("left", "left nephrostomy")
    assert scorer.final_score(spell("▁left", "▁ne", "phro", "stomy")) == len("leftnephrostomy")
    assert scorer.final_score(spell("▁left", "▁ne", "phro")) == len("left")
    assert scorer.final_score(spell("▁left", "▁left")) == 2 * len("left")


def test_special_tokens_that_the_search_glues_to_a_piece_have_no_letters() -> None:
    assert make_scorer("left").final_score("#left</s>") == 4


@given(st.lists(st.sampled_from(PIECES[3:]), max_size=12), st.sets(st.sampled_from(["left", "a", "api left", "a left", "pi"])))
def test_score_is_the_same_whether_a_text_is_met_step_by_step_or_at_once(pieces: list[str], terms: set[str]) -> None:
    stepwise, at_once = make_scorer(*terms), make_scorer(*terms)
    for length in range(1, len(pieces)):
        stepwise.score(spell(*pieces[:length]))
    assert stepwise.score(spell(*pieces)) == at_once.score(spell(*pieces))
    assert 0 <= at_once.final_score(spell(*pieces)) <= at_once.score(spell(*pieces))


# -- the guard ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**31), st.integers(1, 5), st.lists(st.integers(1, 3), max_size=3))
def test_likelihood_is_the_sum_over_all_alignments(seed: int, frames: int, token_ids: list[int]) -> None:
    log_probs = np.log(np.random.default_rng(seed).dirichlet(np.ones(4), frames))
    paths = (
        path
        for path in itertools.product(range(4), repeat=frames)
        if [token for token, _ in itertools.groupby(path) if token] == token_ids
    )
    expected = sum(math.exp(sum(log_probs[frame, token] for frame, token in enumerate(path))) for path in paths)
    assert math.exp(log_likelihood(log_probs, token_ids, 0)) == pytest.approx(expected, abs=1e-9)


def piece(name: str, start: int, end: int | None = None) -> Piece:
    return Piece(PIECES.index(name), name, start, start + 1 if end is None else end, -0.1)


def guard(biased: list[Piece], plain: list[Piece], heard: list[dict[str, float]], most_nats: float, *terms: str) -> list[str]:
    """What is left of ``biased`` where each second frame is ``heard`` and the others are blank."""
    probabilities = np.full((2 * len(heard), len(PIECES)), 1e-9)
    probabilities[1::2, 0] = 1.0
    for row, shares in zip(probabilities[::2], heard, strict=True):
        row[[PIECES.index(name) for name in shares]] = list(shares.values())
    emissions = sparsify(np.log(probabilities), -12.0, 1.0, 0)
    scorer = make_scorer(*terms)

    def count_bonus(pieces: Sequence[Piece]) -> float:
        return scorer.final_score(spell(*(one.text for one in pieces)))

    kept = drop_unsupported(biased, plain, emissions, 0, most_nats, count_bonus)
    assert all(one.end_frame <= other.start_frame for one, other in pairwise(kept))
    return [one.text for one in kept]


def test_guard_judges_each_place_by_itself() -> None:
    biased = [piece("▁pi", 0), piece("▁left", 2), piece("band", 4)]
    plain = [piece("▁a", 0), piece("▁left", 2), piece("ban", 4)]
    heard = [{"▁a": 0.6, "▁pi": 0.4}, {"▁left": 1.0}, {"ban": 0.999, "band": 0.001}]
    assert guard(biased, plain, heard, 10.0, "pi", "leftband") == ["▁pi", "▁left", "band"]
    assert guard(biased, plain, heard, 4.0, "pi", "leftband") == ["▁pi", "▁left", "ban"]
    assert guard(biased, plain, heard, 0.1, "pi", "leftband") == ["▁a", "▁left", "ban"]
    assert guard(biased, plain, heard, 10.0, "api") == ["▁a", "▁left", "ban"]  # what earns no hotword is a side effect


def test_a_hotword_that_loses_one_place_loses_the_others() -> None:
    biased = [piece("▁ne", 0), piece("phro", 2), piece("stomy", 4)]
    plain = [piece("▁a", 0), piece("phro", 2), piece("ban", 4)]
    heard = [{"▁a": 0.8, "▁ne": 0.2}, {"phro": 1.0}, {"ban": 0.9999, "stomy": 0.0001}]
    assert guard(biased, plain, heard, 4.0, "nephrostomy") == ["▁a", "phro", "ban"]
    assert guard(biased, plain, heard, 20.0, "nephrostomy") == ["▁ne", "phro", "stomy"]


def test_a_piece_that_comes_again_is_not_taken_for_the_one_before() -> None:
    biased = [piece("▁left", 0), piece("▁ne", 2), piece("phro", 4), piece("stomy", 6), piece("▁a", 8)]
    plain = [piece("▁left", 0), piece("▁a", 2), piece("ban", 4), piece("a", 6), piece("▁a", 8)]
    heard = [{"▁left": 1.0}, {"▁a": 0.9, "▁ne": 0.1}, {"ban": 0.98, "phro": 0.02}, {"a": 0.98, "stomy": 0.02}, {"▁a": 1.0}]
    assert guard(biased, plain, heard, 4.0, "nephrostomy") == ["▁left", "▁a", "ban", "a", "▁a"]
    # A model may also end otherwise in the two hypotheses
    assert guard(biased[:4], plain, heard, 4.0, "nephrostomy") == ["▁left", "▁a", "ban", "a", "▁a"]


def test_a_refused_hotword_is_refused_in_parts_too_and_leaves_the_support_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [{"▁left": 0.99}, {"▁a": 0.9, "▁ne": 0.1}, {"ban": 0.98, "phro": 0.02}, {"a": 0.98, "stomy": 0.02}]
    emissions = hear(*frames, {"▁pixel": 0.6, "▁pi": 0.4})
    hotwords = write(tmp_path / "devices.txt", "left nephrostomy", "nephrostomy")
    keys = {"lm": None, "hotwords": str(hotwords), "hotword_weight": 3.0, "token_min_logp": -7.0}
    decoder = open_decoder(Decoding.model_validate(keys), VOCABULARY)
    whole = decoder.decode(emissions)
    monkeypatch.setattr("dictalake.decoding.beam.WHOLE_FRAMES", 4)
    in_parts = decoder.decode(emissions)
    for hypotheses in (whole, in_parts):
        assert VOCABULARY.text_of(one.text for one in hypotheses[0].pieces) == "left abana pixel"
        assert all(one.posterior > 0.5 for one in hypotheses[0].pieces)
        totals = [hypothesis.total_score for hypothesis in hypotheses]
        assert totals == sorted(totals, reverse=True)


# -- the file ----------------------------------------------------------------------------------------------------------


def test_file_holds_terms_with_weights_and_comments(tmp_path: Path) -> None:
    path = write(tmp_path / "h.txt", "# devices", "Left  Nephrostomy\t2.5", "", "apixaban")
    assert read_hotwords(path, VOCABULARY) == HotwordList((Hotword("Left Nephrostomy", 2.5), Hotword("apixaban")))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_may_come_from_a_spreadsheet_or_an_editor_of_windows(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "h.txt"
    path.write_bytes("# drugs\r\n\r\n  # more\r\nLeft\t2,5\t\r\napixaban\t\r\n\t\r\n".encode(encoding))
    assert read_hotwords(path, VOCABULARY) == HotwordList((Hotword("Left", 2.5), Hotword("apixaban")))


def test_a_term_that_stands_there_again_counts_once_with_its_heavier_weight(tmp_path: Path) -> None:
    path = write(tmp_path / "h.txt", "left  band", "pixel\t3", "Left Band\t2", "LEFT\u00a0BAND\t0.5", "pixel")
    assert read_hotwords(path, VOCABULARY) == HotwordList((Hotword("left band", 2.0), Hotword("pixel", 3.0)))


def test_terms_that_the_model_cannot_write_are_left_out_and_told_together(tmp_path: Path) -> None:
    terms = ["leftq", "apixaban", "Q" * 50, "a", "Leftq", "pixel/band", "left"]
    found = read_hotwords(write(tmp_path / "h.txt", *terms), VOCABULARY)
    assert found.hotwords == (Hotword("apixaban"), Hotword("left"))
    assert found.explain_left_out() == (
        "decoding.hotwords: 4 of 6 terms are left out, as the model has no pieces for some of their letters or they have fewer "
        "than 2 (line 1, 3, 4, 6); write them as they are spoken"
    )
    assert read_hotwords(write(tmp_path / "h.txt", "left"), VOCABULARY).explain_left_out() is None


def test_the_left_out_terms_change_nothing_of_what_is_heard(tmp_path: Path) -> None:
    plain, mixed = write(tmp_path / "a.txt", "apixaban"), write(tmp_path / "b.txt", "β-blocker", "apixaban", "q", "Apixaban")
    assert read(MISHEARD, mixed) == read(MISHEARD, plain) == "apixaban"


ENGLISH = Vocabulary.from_pieces(["<pad>", "▁", *"abcdefghijklmnopqrstuvwxyz'"], blank_id=0)
WITH_DIGITS = Vocabulary.from_pieces([*ENGLISH.pieces, *"0123456789-é"], blank_id=0)


@pytest.mark.parametrize(
    ("term", "spoken"),
    [
        ("HER2", "HER two"),
        ("COVID-19", "COVID nineteen"),
        ("5-FU", "five FU"),
        ("p53 mutation", "p fifty three mutation"),
        ("0.5 mg", "zero point five mg"),
        ("500mg", "five hundred mg"),
        ("1,000 units", "one thousand units"),
        ("5th rib", "fifth rib"),
        ("20th", "twentieth"),
        ("102nd", "one hundred second"),
        ("100th", "one hundredth"),
        ("agent 007", "agent zero zero seven"),
        ("H\u2082", "H two"),
        ("Crohn’s", "Crohn's"),
    ],
)
def test_digits_are_written_as_they_are_spoken_where_the_model_has_none(tmp_path: Path, term: str, spoken: str) -> None:
    path = write(tmp_path / "h.txt", term, spoken)
    assert read_hotwords(path, ENGLISH) == HotwordList((Hotword(spoken),))


def test_a_term_that_the_model_can_write_stays_as_it_stands(tmp_path: Path) -> None:
    path = write(tmp_path / "h.txt", "COVID-19", "cafe\u0301")
    assert read_hotwords(path, WITH_DIGITS) == HotwordList((Hotword("COVID-19"), Hotword("café")))


@given(st.integers(0, 10**9 - 1))
def test_a_spoken_number_is_read_back_as_the_same(number: int) -> None:
    assert read_cardinal(spell_integer(str(number))) == number


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=20))
def test_every_line_is_a_term_that_can_be_written_or_is_named_as_left_out(lines: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "h.txt")
        path.write_text("\n".join(["left", *(line.replace("\t", "") for line in lines)]), encoding="utf-8")
        found = read_hotwords(path, VOCABULARY)
    letters = {letter for piece in PIECES[3:] for letter in piece}
    assert all(letters.issuperset(fold(one.term.replace(" ", ""))) for one in found.hotwords)
    assert len({fold(one.term) for one in found.hotwords}) == len(found.hotwords)
    assert not {fold(one.term) for one in found.hotwords} & {fold(term) for _, term in found.left_out}


def test_the_person_who_starts_is_told_once_and_a_worker_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(logs, "log_event", lambda event, line, *rest, **fields: lines.append(event))
    decoding = Decoding.model_validate({"lm": None, "hotwords": str(write(tmp_path / "h.txt", "left", "q"))})
    open_decoder(decoding, VOCABULARY)
    assert lines == []
    warn_of_hotwords(decoding, VOCABULARY)
    warn_of_hotwords(decoding.model_copy(update={"kind": "greedy"}), VOCABULARY)
    warn_of_hotwords(decoding.model_copy(update={"hotwords": str(write(tmp_path / "g.txt", "left"))}), VOCABULARY)
    assert lines == ["hotwords"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["apixaban\tmuch"], "line 1: the weight after the tab must be a number above 0 and at most 10"),
        (["apixaban\t0"], "line 1: the weight after the tab must be a number above 0 and at most 10"),
        (["apixaban\tnan"], "line 1: the weight after the tab must be a number above 0 and at most 10"),
        (["# nothing"], "holds no term; expected"),
        (["leftq", "q"], "holds no term that the model can spell; expected"),
    ],
)
def test_bad_lines_are_named_by_number_and_never_by_what_they_say(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_hotwords(write(tmp_path / "h.txt", *lines), VOCABULARY)
    assert "leftq" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"decoding.hotwords = .*gone.txt: cannot be read \(No such file"):
        read(MISHEARD, tmp_path / "gone.txt")


def test_terms_are_found_as_whole_words_whatever_their_case() -> None:
    terms = [Hotword("left"), Hotword("Left Nephrostomy"), Hotword("api")]
    assert find_hotwords(terms, "LEFT nephrostomy, left; apixaban leftmost (api)") == ["left nephrostomy", "left", "api"]
