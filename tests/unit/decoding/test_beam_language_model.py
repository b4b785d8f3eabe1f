"""What the language model decides in beam search, and which language models are refused."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import numpy as np
import pytest

from dictalake.acoustic.sparse import sparsify
from dictalake.config.sections import Decoding
from dictalake.decoding.base import open_decoder
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.errors import ConfigError
from tests.beam_inputs import AMBIGUOUS, PIECES, TOY, VOCABULARY, hear_toy, peaky
from tests.models import write_arpa


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


def test_name_says_which_engine_and_version(engine: str) -> None:
    for wanted in (engine, "auto") if engine == "native" else (engine,):
        name, version = open_decoder(Decoding.model_validate({"engine": wanted, "lm": None}), VOCABULARY).name.split()
        assert name == engine
        assert version[0].isdigit()


@pytest.mark.parametrize("packed", ["arpa", "arpa.gz", "arpa.xz"])
def test_a_language_model_gives_the_same_scores_in_whatever_form(
    engine: str, random_lm: str, packed: str, tmp_path: Path
) -> None:
    path = tmp_path / f"lm.{packed}"
    content = Path(random_lm).read_bytes()
    path.write_bytes({"arpa.gz": gzip.compress, "arpa.xz": lzma.compress}.get(packed, bytes)(content))
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
