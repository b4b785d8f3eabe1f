"""Beam search: equal to pyctcdecode in Google's recipe, and steered by the language model as much as its weight says."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyctcdecode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dictalake.acoustic.sparse import sparsify
from dictalake.config.sections import Decoding
from dictalake.decoding.base import open_decoder
from dictalake.decoding.beam import CONTEXT_FRAMES, WHOLE_FRAMES, measure_posterior
from dictalake.decoding.ctc_beam_decoder import faster_decoder
from dictalake.decoding.segments import PART_FRAMES, cut_at_pauses, skip_repeated_blanks
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.errors import ConfigError
from dictalake.records import Emissions, Hypothesis, Piece
from tests.models import write_arpa

ENGINES = ["pyctcdecode", "ctc-beam-decoder"]
PIECES = ["<pad>", "</s>", "<unk>", "▁", *(f"▁w{i}" for i in range(20)), *(f"x{i}" for i in range(20)), "▁{period}"]
VOCABULARY = Vocabulary.from_pieces(PIECES, blank_id=0)
# Google's labels, written out again so that the reference owes nothing to the code under test.
LABELS = ["", "</s>", "<unk>", *("▁" + piece.replace("▁", "#") for piece in PIECES[3:])]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "ctc-beam-decoder":
        pytest.importorskip("ctc_beam_decoder")
    return str(request.param)


@pytest.fixture(scope="module")
def random_lm(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = np.random.default_rng(7)
    words = [label[1:] for label in LABELS[3:]]
    unigrams = {word: -1.0 - 2 * rng.random() for word in words}
    bigrams = {(a, b): -2 * rng.random() for a in words for b in words if rng.random() < 0.3}
    return write_arpa(tmp_path_factory.mktemp("lm") / "lm.kenlm", unigrams, bigrams)


def recipe(engine: str, lm: str | None) -> Decoding:
    """Google's, to the letter."""
    return Decoding.model_validate({"engine": engine, "lm": lm, "known_pieces": False})


def peaky(seed: int, pieces: int, gap: int = 3, doubt: float = 1.0) -> np.ndarray:
    """Log-probabilities of a model that hears ``pieces`` pieces, ``doubt`` of them not well, with pauses between."""
    rng = np.random.default_rng(seed)
    rows: list[np.ndarray] = []
    vocabulary = len(PIECES)
    for _ in range(pieces):
        for _ in range(rng.integers(1, 3)):
            logits = rng.normal(-6, 1, vocabulary)
            rivals = rng.choice(np.arange(3, vocabulary), 3, replace=False)
            logits[rivals] = rng.normal(1, 1.2, 3)
            if rng.random() >= doubt:
                logits[rivals[0]] = 9.0
            logits[0] = rng.normal(0, 2)
            rows.append(logits)
        for _ in range(rng.integers(0, gap * 2)):
            logits = rng.normal(-6, 1, vocabulary)
            logits[0] = rng.choice([4.0, 14.0])
            rows.append(logits)
    matrix = np.array(rows).reshape(-1, vocabulary)
    return (matrix - np.log(np.exp(matrix).sum(axis=1, keepdims=True))).astype(np.float32)


def text(hypothesis: Hypothesis) -> str:
    return VOCABULARY.text_of(piece.text for piece in hypothesis.pieces)


def restore(text_of_pieces: str) -> str:
    """The recipe's own way from pieces to text."""
    return " ".join(text_of_pieces.replace(" ", "").replace("#", " ").replace("</s>", "").split())


@pytest.mark.parametrize("with_lm", [True, False])
def test_reading_is_that_of_pyctcdecode_on_the_same_matrix(engine: str, random_lm: str, with_lm: bool) -> None:
    lm = random_lm if with_lm else None
    reference = pyctcdecode.build_ctcdecoder(LABELS, lm, alpha=0.5, beta=1.5)
    decoder = open_decoder(recipe(engine, lm), VOCABULARY)
    for seed in range(30):
        emissions = sparsify(peaky(seed, pieces=2 + seed, doubt=1.0), -6.0, 0.999, 0)
        expected = [restore(beam[0]) for beam in reference.decode_beams(emissions.dense(), beam_width=8)]
        read = [text(hypothesis) for hypothesis in decoder.decode(emissions)]
        # pyctcdecode walks a set, so the last places of a list of near-equals are its own affair.
        assert read == expected if engine == "pyctcdecode" else read[0] == expected[0]


@pytest.mark.parametrize("with_lm", [True, False])
def test_text_is_that_of_googles_recipe_on_full_emissions(engine: str, random_lm: str, with_lm: bool) -> None:
    # Where almost every piece is a toss-up (doubt=1), rounding to float16 alone turns about one text in fifty.
    lm = random_lm if with_lm else None
    reference = pyctcdecode.build_ctcdecoder(LABELS, lm, alpha=0.5, beta=1.5)
    decoder = open_decoder(recipe(engine, lm), VOCABULARY)
    for seed in range(30):
        log_probs = peaky(seed, pieces=2 + seed, doubt=0.3)
        best = decoder.decode(sparsify(log_probs, -6.0, 0.999, 0))[0]
        assert text(best) == restore(reference.decode_beams(log_probs, beam_width=8)[0][0])


def test_scores_are_those_of_the_recipe(engine: str, random_lm: str) -> None:
    log_probs = peaky(3, pieces=12)
    reference = pyctcdecode.build_ctcdecoder(LABELS, random_lm, alpha=0.5, beta=1.5)
    _, _, _, acoustic_score, total_score = reference.decode_beams(log_probs, beam_width=8)[0]
    best = open_decoder(recipe(engine, random_lm), VOCABULARY).decode(sparsify(log_probs, -6.0, 1.0, 0))[0]
    assert best.acoustic_score == pytest.approx(acoustic_score, abs=0.05)
    assert best.total_score == pytest.approx(total_score, abs=0.05)


def test_pieces_are_in_order_on_the_true_time_axis(engine: str, random_lm: str) -> None:
    emissions = sparsify(peaky(5, pieces=60, gap=8), -6.0, 0.999, 0)
    assert emissions.kept < emissions.frames
    for hypothesis in open_decoder(recipe(engine, random_lm), VOCABULARY).decode(emissions):
        assert all(0 <= piece.start_frame < piece.end_frame <= emissions.frames for piece in hypothesis.pieces)
        assert all(before.end_frame <= after.start_frame for before, after in pairwise(hypothesis.pieces))
        assert all(piece.logp <= 0 for piece in hypothesis.pieces)


# -- what makes it fast changes nothing --------------------------------------------------------------------------------


@pytest.mark.parametrize("with_lm", [True, False])
def test_the_engine_called_directly_gives_the_beams_of_its_package(random_lm: str, with_lm: bool) -> None:
    package = pytest.importorskip("ctc_beam_decoder")
    limits = {"beam_width": 8, "beam_prune_logp": -10.0, "token_min_logp": -5.0}
    for known in (None, [label[1:] for label in LABELS[3:]]):
        settings_of = {"kenlm_model_path": random_lm if with_lm else None, "unigrams": known, "alpha": 0.5, "beta": 1.5}
        direct, usual = faster_decoder(package)(LABELS, **settings_of), package.build_ctcdecoder(LABELS, **settings_of)
        for seed in range(20):
            log_probs = peaky(seed, pieces=1 + 3 * seed)
            before = log_probs.copy()
            assert direct.decode_beams(log_probs, **limits) == usual.decode_beams(log_probs, **limits)
            assert np.array_equal(log_probs, before)
        silence = np.log(np.full((5, len(LABELS)), 1e-4, np.float32))
        silence[:, 0] = 0.0
        assert direct.decode_beams(silence, **limits) == usual.decode_beams(silence, **limits)


def test_a_matrix_of_another_vocabulary_is_refused_before_the_engine_reads_it() -> None:
    package = pytest.importorskip("ctc_beam_decoder")
    limits = {"beam_width": 8, "beam_prune_logp": -10.0, "token_min_logp": -5.0}
    with pytest.raises(ValueError, match=rf"{len(LABELS)} columns"):
        faster_decoder(package)(LABELS).decode_beams(np.zeros((3, 5), np.float32), **limits)


class InOrder(set[int]):
    """A set that is walked in order."""

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(set.__iter__(self)))

    def __or__(self, other: Any) -> Any:
        return InOrder(set.__or__(self, other))


def test_the_engines_differ_only_in_the_order_of_equals(random_lm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyctcdecode walks the tokens of a frame as they lie in a set, the C++ engine by id: which of two equal beams is dropped
    depends on it, and nothing else does."""
    package = pytest.importorskip("ctc_beam_decoder")
    limits = {"beam_width": 8, "beam_prune_logp": -10.0, "token_min_logp": -5.0}
    known = [label[1:] for label in LABELS[3:]]
    theirs = pyctcdecode.build_ctcdecoder(LABELS, random_lm, unigrams=known, alpha=0.5, beta=1.5)
    ours = faster_decoder(package)(LABELS, kenlm_model_path=random_lm, unigrams=known, alpha=0.5, beta=1.5)

    def count_the_same(matrices: list[np.ndarray]) -> int:
        both = [(ours.decode_beams(matrix, **limits), theirs.decode_beams(matrix, **limits)) for matrix in matrices]
        return sum([(b[0], *b[2:]) for b in mine] == [(b[0], *b[2:]) for b in their] for mine, their in both)

    exact = [peaky(seed, pieces=20) for seed in range(20)]
    with_ties = [np.round(matrix * 2) / 2 for matrix in exact]
    assert count_the_same(exact) == 20
    assert count_the_same(with_ties) < 20
    monkeypatch.setattr(pyctcdecode.decoder, "set", InOrder, raising=False)
    assert count_the_same(with_ties) == 20


@pytest.mark.parametrize("known_pieces", [True, False])
def test_frames_that_tell_nothing_new_change_no_reading(
    engine: str, random_lm: str, known_pieces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = recipe(engine, random_lm).model_copy(update={"known_pieces": known_pieces})
    decoder = open_decoder(config, VOCABULARY)
    skipped = 0
    for seed in range(40):
        log_probs = peaky(seed, pieces=seed, gap=1 + seed % 9, doubt=(0.0, 0.3, 1.0)[seed % 3])
        log_probs[seed % 7 :: 11, 1] = -0.5  # </s>, which an engine glues to the word before
        emissions = sparsify(log_probs, -5.5, (1.0, 0.999)[seed % 2], 0)
        skipped += emissions.kept - skip_repeated_blanks(emissions, 0, -5.0)[0].kept
        fewer = decoder.decode(emissions)
        with monkeypatch.context() as patch:
            patch.setattr("dictalake.decoding.beam.skip_repeated_blanks", lambda emissions, *_: (emissions, 0.0))
            whole = decoder.decode(emissions)
        assert spans(fewer[0]) == spans(whole[0])
        if engine == "ctc-beam-decoder":  # pyctcdecode's lists end with near-equals in the order of a set
            assert [spans(one) for one in fewer] == [spans(one) for one in whole]
        assert [one.acoustic_score for one in fewer] == pytest.approx([one.acoustic_score for one in whole], abs=0.02)
        assert [one.total_score for one in fewer] == pytest.approx([one.total_score for one in whole], abs=0.02)
    assert skipped > 100


def spans(hypothesis: Hypothesis) -> list[tuple[int, int, int, float]]:
    return [(piece.token_id, piece.start_frame, piece.end_frame, round(piece.logp, 3)) for piece in hypothesis.pieces]


@given(seed=st.integers(0, 10_000), pieces=st.integers(0, 40), gap=st.integers(1, 12), doubt=st.sampled_from([0.0, 0.3, 1.0]))
@settings(max_examples=50, deadline=None)
def test_only_a_blank_that_follows_a_blank_is_left_out(seed: int, pieces: int, gap: int, doubt: float) -> None:
    emissions = sparsify(peaky(seed, pieces, gap, doubt), -5.5, 1.0, 0)
    told, skipped_logp = skip_repeated_blanks(emissions, 0, -5.0)
    lost = sorted(set(emissions.frame_index.tolist()) - set(told.frame_index.tolist()))
    assert len(lost) == emissions.kept - told.kept
    log_probs = emissions.dense()
    for frame in lost:
        for one in (frame - 1, frame):
            assert log_probs[one].argmax() == 0
            assert np.sort(log_probs[one])[-2] < -5.0
    assert skipped_logp == pytest.approx(sum(float(log_probs[frame, 0]) for frame in lost), abs=1e-2)
    assert np.array_equal(told.dense(), np.delete(log_probs, lost, axis=0))


def test_another_version_of_the_engines_interface_is_left_to_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("ctc_beam_decoder")
    assert faster_decoder(package) is not package.BeamSearchDecoder
    monkeypatch.setattr(package, "_REQUIRED_ABI_VERSION", 3)
    assert faster_decoder(package) is package.BeamSearchDecoder


# -- the language model's say ------------------------------------------------------------------------------------------

TOY = Vocabulary.from_pieces(["<pad>", "</s>", "<unk>", "▁fracture", "s", "ed"], blank_id=0)


def hear_toy(*frames: dict[int, float]) -> Emissions:
    probabilities = np.full((len(frames), len(TOY.pieces)), 1e-6)
    for row, heard in zip(probabilities, frames, strict=True):
        row[list(heard)] = list(heard.values())
    return sparsify(np.log(probabilities / probabilities.sum(axis=1, keepdims=True)), -6.0, 0.999, 0)


AMBIGUOUS = hear_toy({3: 0.95, 0: 0.05}, {0: 1.0}, {4: 0.35, 5: 0.65}, {0: 1.0})


def test_language_model_overrules_ambiguous_acoustics_as_its_weight_grows(engine: str, tmp_path: Path) -> None:
    lm = write_arpa(
        tmp_path / "toy.arpa", {"#fracture": -1.0, "s": -1.0, "ed": -1.0}, {("#fracture", "s"): -0.1, ("#fracture", "ed"): -1.5}
    )
    texts = {
        weight: TOY.text_of(
            piece.text
            for piece in open_decoder(Decoding(engine=engine, lm=lm, lm_weight=weight), TOY).decode(AMBIGUOUS)[0].pieces
        )
        for weight in (0.0, 0.1, 0.5, 2.0)
    }
    assert texts == {0.0: "fractureed", 0.1: "fractureed", 0.5: "fractures", 2.0: "fractures"}


def test_without_a_language_model_the_acoustics_decide(engine: str) -> None:
    best = open_decoder(Decoding(engine=engine, lm=None), TOY).decode(AMBIGUOUS)[0]
    assert [(piece.text, piece.start_frame, piece.end_frame) for piece in best.pieces] == [("▁fracture", 0, 1), ("ed", 2, 3)]
    assert best.lm_score == pytest.approx(0)


def test_end_of_sentence_token_is_dropped_and_does_not_stretch_the_piece_before(engine: str) -> None:
    emissions = hear_toy({3: 0.95}, {3: 0.9}, {0: 1.0}, {0: 1.0}, {1: 0.9, 0: 0.1}, {0: 1.0})
    best = open_decoder(Decoding(engine=engine, lm=None), TOY).decode(emissions)[0]
    assert [(piece.text, piece.start_frame, piece.end_frame) for piece in best.pieces] == [("▁fracture", 0, 2)]


def test_unknown_token_is_dropped(engine: str) -> None:
    emissions = hear_toy({3: 0.95}, {2: 0.9}, {1: 0.9}, {4: 0.9}, {0: 1.0})
    best = open_decoder(Decoding(engine=engine, lm=None), TOY).decode(emissions)[0]
    assert [piece.text for piece in best.pieces] == ["▁fracture", "s"]


@pytest.mark.parametrize("with_lm", [True, False])
@pytest.mark.parametrize("frames", [0, 1, 50])
def test_silence_is_one_reading_without_pieces(engine: str, random_lm: str, with_lm: bool, frames: int) -> None:
    log_probs = np.full((frames, len(PIECES)), -30.0, np.float32)
    log_probs[:, 0] = 0.0
    decoder = open_decoder(Decoding(engine=engine, lm=random_lm if with_lm else None), VOCABULARY)
    for collapse_blank in (0.999, 1.0):
        (best,) = decoder.decode(sparsify(log_probs, -6.0, collapse_blank, 0))
        assert best.pieces == ()


# -- long recordings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_lm", [True, False])
def test_long_recording_reads_in_parts_like_the_whole(engine: str, random_lm: str, with_lm: bool) -> None:
    lm = random_lm if with_lm else None
    log_probs = peaky(11, pieces=1100, doubt=0.0)
    emissions = sparsify(log_probs, -6.0, 0.999, 0)
    assert emissions.kept > WHOLE_FRAMES + 500
    whole = pyctcdecode.build_ctcdecoder(LABELS, lm, alpha=0.5, beta=1.5).decode_beams(log_probs, beam_width=8)[0]
    best = open_decoder(recipe(engine, lm), VOCABULARY).decode(emissions)[0]
    assert text(best) == restore(whole[0])
    assert all(before.end_frame <= after.start_frame for before, after in pairwise(best.pieces))


def test_parts_of_a_long_recording_are_nearer_to_a_wide_search_than_the_whole_is(random_lm: str) -> None:
    # A whole search spends its eight beams on doubts of long ago, whose scores differ for ever.
    reference = pytest.importorskip("ctc_beam_decoder").build_ctcdecoder(LABELS, random_lm, alpha=0.5, beta=1.5)
    decoder = open_decoder(Decoding(lm=random_lm), VOCABULARY)
    off_whole, off_parts = [], []
    for seed in (11, 13):
        emissions = sparsify(peaky(seed, pieces=1100, doubt=0.1), -6.0, 0.999, 0)
        wide, whole = (
            reference.decode_beams(emissions.dense(), beam_width=width)[0][0].replace("</s>", "").split() for width in (100, 8)
        )
        parts = [LABELS[piece.token_id][1:] for piece in decoder.decode(emissions)[0].pieces]
        off_whole.append(count_differences(wide, whole))
        off_parts.append(count_differences(wide, parts))
    assert sum(off_parts) < sum(off_whole) < 60


def count_differences(expected: Sequence[str], actual: Sequence[str]) -> int:
    same = sum(block.size for block in SequenceMatcher(None, expected, actual, autojunk=False).get_matching_blocks())
    return max(len(expected), len(actual)) - same


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 9000))
def test_parts_cover_every_frame_once_and_stay_short(seed: int, frames: int) -> None:
    rng = np.random.default_rng(seed)
    blank = rng.random(frames)
    emissions = sparsify(np.log(np.stack([blank, 1 - blank], axis=1)), -6.0, 0.9, 0)
    parts = cut_at_pauses(emissions, blank_id=0)
    assert parts[0][0] == 0
    assert parts[-1][1] == emissions.kept
    assert all(before[1] == after[0] for before, after in pairwise(parts))
    assert all(end - start <= PART_FRAMES for start, end in parts)
    assert 2 * CONTEXT_FRAMES < PART_FRAMES < WHOLE_FRAMES


def test_cut_is_at_the_longest_pause() -> None:
    blank = np.full(5000, 0.5)
    blank[1400:1500] = 0.9999
    blank[1700:1900] = 0.9999
    emissions = sparsify(np.log(np.stack([blank, 1 - blank], axis=1)), -6.0, 0.999, 0)
    assert emissions.frame_index[cut_at_pauses(emissions, blank_id=0)[0][1]] == 1700


# -- configuration -----------------------------------------------------------------------------------------------------


def refusal(config: Decoding, vocabulary: Vocabulary = VOCABULARY) -> str:
    with pytest.raises(ConfigError) as caught:
        open_decoder(config, vocabulary)
    return str(caught.value)


def test_missing_language_model_is_named(engine: str, tmp_path: Path) -> None:
    assert refusal(Decoding(engine=engine, lm=str(tmp_path / "none.kenlm"))) == (
        f"decoding.lm = {tmp_path / 'none.kenlm'}: no such file (allowed: a KenLM file on this machine, or nothing)"
    )


@pytest.mark.parametrize(
    "content", [b"", b"not a language model\n" * 9, b"mmap lm http://kheafield.com/code format\n\0" + bytes(500)]
)
def test_damaged_language_model_is_named(engine: str, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.kenlm"
    path.write_bytes(content)
    assert refusal(Decoding(engine=engine, lm=str(path))).startswith(f"decoding.lm = {path}: KenLM cannot read it: it is ")


def test_language_model_of_another_tokenizer_is_refused(engine: str, tmp_path: Path) -> None:
    lm = write_arpa(tmp_path / "words.kenlm", {"fracture": -1.0, "no": -1.0}, {("no", "fracture"): -0.1})
    assert "it knows 0 of the model's 42 pieces, so it was made for another tokenizer" in refusal(
        Decoding(engine=engine, lm=lm)
    )


@pytest.mark.parametrize(
    ("wanted", "expected"), [("auto", ("ctc-beam-decoder", "pyctcdecode")), ("pyctcdecode", ("pyctcdecode",))]
)
def test_name_says_which_engine_and_version(wanted: str, expected: Sequence[str]) -> None:
    name = open_decoder(Decoding(engine=wanted, lm=None), VOCABULARY).name
    assert name.split()[0] in expected
    assert name.split()[1][0].isdigit()


# -- n-best and what other decoders do ---------------------------------------------------------------------------------


def test_readings_come_best_first_with_scores_that_add_up(engine: str, random_lm: str) -> None:
    decoder = open_decoder(Decoding.model_validate({"engine": engine, "lm": random_lm}), VOCABULARY)
    for seed in range(10):
        hypotheses = decoder.decode(sparsify(peaky(seed, pieces=15), -6.0, 0.999, 0))
        totals = [hypothesis.total_score for hypothesis in hypotheses]
        assert totals == sorted(totals, reverse=True)
        assert 1 < len(hypotheses) <= 8
        assert len({tuple(piece.token_id for piece in hypothesis.pieces) for hypothesis in hypotheses}) == len(hypotheses)
        assert all(r.total_score == pytest.approx(r.acoustic_score + r.lm_score) and r.hotword_score == 0 for r in hypotheses)


def test_readings_of_a_long_recording_are_the_best_pairs_of_its_parts(engine: str, random_lm: str) -> None:
    emissions = sparsify(peaky(11, pieces=1300), -6.0, 0.999, 0)
    assert emissions.kept > WHOLE_FRAMES
    hypotheses = open_decoder(Decoding.model_validate({"engine": engine, "lm": random_lm}), VOCABULARY).decode(emissions)
    totals = [hypothesis.total_score for hypothesis in hypotheses]
    assert len(hypotheses) == 8
    assert totals == sorted(totals, reverse=True)
    assert all(a.end_frame <= b.start_frame for hypothesis in hypotheses for a, b in pairwise(hypothesis.pieces))


def test_support_is_the_share_of_the_list_that_agrees() -> None:
    def hypothesis(total: float, *names: str) -> Hypothesis:
        pieces = (Piece(PIECES.index(name), name, 10 * i, 10 * i + 1, -0.1) for i, name in enumerate(names))
        return Hypothesis(tuple(pieces), total)

    best = measure_posterior(
        [
            hypothesis(math.log(0.5), "▁w1", "▁w2"),
            hypothesis(math.log(0.3), "▁w1", "▁w3"),
            hypothesis(math.log(0.2), "▁w3", "▁w2"),
        ]
    )
    assert [piece.posterior for piece in best.pieces] == pytest.approx([0.8, 0.7])


@pytest.mark.parametrize("packed", ["arpa", "arpa.gz"])
def test_a_language_model_gives_the_same_scores_in_whatever_form(
    engine: str, random_lm: str, packed: str, tmp_path: Path
) -> None:
    path = tmp_path / f"lm.{packed}"
    content = Path(random_lm).read_bytes()
    path.write_bytes(gzip.compress(content) if packed.endswith("gz") else content)
    emissions = sparsify(peaky(4, pieces=20), -6.0, 0.999, 0)
    for known_pieces in (True, False):
        expected, read = (
            open_decoder(
                Decoding.model_validate({"engine": engine, "lm": lm, "known_pieces": known_pieces}), VOCABULARY
            ).decode(emissions)[0]
            for lm in (random_lm, str(path))
        )
        assert read == expected


def test_a_long_first_piece_is_not_lost_for_being_unfinished(engine: str, tmp_path: Path) -> None:
    lm = write_arpa(tmp_path / "toy.arpa", {"#fracture": -1.0, "s": -1.0, "ed": -1.0}, {("#fracture", "s"): -0.1})
    decoders = {
        known: open_decoder(Decoding.model_validate({"engine": engine, "lm": lm, "known_pieces": known}), TOY)
        for known in (True, False)
    }
    texts = {known: TOY.text_of(p.text for p in decoder.decode(AMBIGUOUS)[0].pieces) for known, decoder in decoders.items()}
    assert texts == {True: "fractures", False: "ed"}  # False: the recipe, where it is pruned before its second piece
