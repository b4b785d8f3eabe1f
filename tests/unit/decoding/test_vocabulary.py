"""One form for every kind of CTC vocabulary, and Google's labels for pyctcdecode."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import Wav2Vec2CTCTokenizer

from dictalake.decoding.vocabulary import Vocabulary
from dictalake.errors import ConfigError
from dictalake.training.tokenizer import build_tokenizer

TEXTS = ["[FINDINGS] {colon} no acute fracture {period} {new paragraph} heart size is normal {period}"] * 20


def test_labels_are_those_of_the_recipe_for_medasr() -> None:
    vocabulary = Vocabulary.from_pieces(["<pad>", "</s>", "<unk>", "▁", "▁no", "cture", "▁{period}"], blank_id=0)
    assert vocabulary.pyctcdecode_labels() == ["", "</s>", "<unk>", "▁#", "▁#no", "▁cture", "▁#{period}"]
    assert vocabulary.lm_words() == {3: "#", 4: "#no", 5: "cture", 6: "#{period}"}


def test_labels_stay_distinct_when_the_vocabulary_has_a_number_sign() -> None:
    vocabulary = Vocabulary.from_pieces(["<pad>", "▁", "#", "▁a#"], blank_id=0)
    assert vocabulary.pyctcdecode_labels() == ["", "▁#", "▁＃", "▁#a#"]


def test_text_has_single_spaces_and_no_special_entries() -> None:
    vocabulary = Vocabulary.from_pieces(["<pad>", "</s>", "▁", "▁no", "▁fra", "cture", "▁{new", "▁paragraph}"], blank_id=0)
    said = ["▁", "▁no", "▁fra", "cture", "▁{new", "▁paragraph}", "<pad>", "</s>"]
    assert vocabulary.text_of(said) == "no fracture {new paragraph}"
    assert vocabulary.text_of([]) == ""


def test_entries_beyond_the_models_head_are_cut_off_and_columns_without_entry_are_special() -> None:
    tokenizer = build_tokenizer(TEXTS, 60)
    cut = Vocabulary.from_tokenizer(tokenizer, 10)
    assert cut.pieces == tuple(tokenizer.convert_ids_to_tokens(range(10)))
    wide = Vocabulary.from_tokenizer(tokenizer, len(tokenizer) + 2)
    assert wide.pieces[-2:] == (f"<unused_{len(tokenizer)}>", f"<unused_{len(tokenizer) + 1}>")
    assert {0, 1, 2, len(tokenizer), len(tokenizer) + 1} == wide.special_ids
    assert len(set(wide.pyctcdecode_labels())) == len(wide.pieces)


def test_text_is_what_the_tokenizer_itself_decodes() -> None:
    tokenizer = build_tokenizer(TEXTS, 60)
    vocabulary = Vocabulary.from_tokenizer(tokenizer, len(tokenizer))
    ids = tokenizer(TEXTS[0]).input_ids
    decoded = tokenizer.decode(ids, group_tokens=False, skip_special_tokens=True)
    assert vocabulary.text_of(vocabulary.pieces[i] for i in ids) == decoded == TEXTS[0]


def test_character_vocabulary_of_wav2vec2(tmp_path: Path) -> None:
    entries = ["<pad>", "<s>", "</s>", "<unk>", "|", "N", "O", "I", "S"]
    (tmp_path / "vocab.json").write_text(json.dumps({entry: i for i, entry in enumerate(entries)}))
    vocabulary = Vocabulary.from_tokenizer(Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json")), len(entries))
    assert vocabulary.pieces == ("<pad>", "<s>", "</s>", "<unk>", "▁", "N", "O", "I", "S")
    assert vocabulary.pyctcdecode_labels() == ["", "<s>", "</s>", "<unk>", "▁#", "▁N", "▁O", "▁I", "▁S"]
    assert vocabulary.text_of(["N", "O", "▁", "I", "S"]) == "NO IS"


def test_bracketed_special_entries_are_told_from_headings() -> None:
    vocabulary = Vocabulary.from_pieces(["[PAD]", "[UNK]", "[FINDINGS]"], blank_id=0, special_ids=[1])
    assert vocabulary.pieces == ("<PAD>", "<UNK>", "[FINDINGS]")
    assert vocabulary.pyctcdecode_labels() == ["", "<UNK>", "▁[FINDINGS]"]


def test_blank_that_the_model_cannot_emit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the blank has id 7, but the model emits ids 0 to 1"):
        Vocabulary.from_pieces(["<pad>", "▁a"], blank_id=7)
