"""Passages are whole sentences of one section, as many as fit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dictalake.embedding.passages import cut, cut_transcript


def count_words(text: str) -> int:
    return len(text.split())


def cut_words(text: str, most: int) -> list[str]:
    return [text[start:end] for start, end in cut(text, count_words, most)]


def test_whole_sentences_as_many_as_fit() -> None:
    text = "No fracture. The disc measures 4.3 cm. Is it new? Compare.\nNew line"
    assert cut_words(text, 8) == ["No fracture. The disc measures 4.3 cm.", "Is it new? Compare.\nNew line"]
    assert cut_words(text, 6) == ["No fracture.", "The disc measures 4.3 cm.", "Is it new? Compare.\nNew line"]
    assert cut_words("", 6) == cut_words(" \n ", 6) == []


def test_a_long_sentence_is_cut_between_words() -> None:
    assert cut_words("a b c d e. f", 3) == ["a b", "c d e.", "f"]


def test_each_section_has_passages_of_its_own() -> None:
    sections = [{"heading": None, "text": "Chest."}, {"heading": "FINDINGS", "text": "Clear. Well."}]
    found = [(one.section, one.start, one.end, one.text) for one in cut_transcript("unused", sections, count_words, 1)]
    assert found == [(1, 0, 6, "Chest."), (2, 0, 6, "Clear."), (2, 7, 12, "Well.")]
    assert [(one.section, one.text) for one in cut_transcript("Chest.", [], count_words, 9)] == [(0, "Chest.")]


@given(st.text(alphabet="ab .?\n", max_size=60), st.integers(1, 5))
def test_no_word_is_lost_and_none_is_there_twice(text: str, most: int) -> None:
    passages = cut_words(text, most)
    assert " ".join(passages).split() == text.split()
    assert all(passage.strip() == passage and 0 < count_words(passage) <= most for passage in passages)
