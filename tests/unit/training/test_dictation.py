"""The written corpus, the generator that makes dictations of it, and the tokenizer over them."""

from __future__ import annotations

import csv
import random
import re

import pytest

from dictalake.config.locations import ASSETS
from dictalake.training.dictation import Corpus, is_held_out, write_dictations
from dictalake.training.tokenizer import build_tokenizer

SPOKEN = re.compile(r"(?:[A-Za-z']+|\{[a-z ]+\}|\[[A-Z ]+\])(?: (?:[A-Za-z']+|\{[a-z ]+\}|\[[A-Z ]+\]))*")


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus.load()


def test_corpus_is_wide(corpus: Corpus) -> None:
    assert len(corpus.templates) > 800
    assert sum(len(sentences) for sentences in corpus.reports.values()) > 5_000
    assert len({word for sentences in corpus.reports.values() for s in sentences for word in s.split()}) > 8_000


def test_every_template_expands_to_spoken_form(corpus: Corpus) -> None:
    for template in corpus.templates:
        for seed in range(3):
            sentence = corpus.expand(template.pattern, random.Random(seed))
            assert SPOKEN.fullmatch(sentence), template.pattern


def test_every_free_form_sentence_is_in_spoken_form(corpus: Corpus) -> None:
    odd = [s for sentences in corpus.reports.values() for s in sentences if not SPOKEN.fullmatch(s)]
    assert odd == []


def test_held_out_dictations_share_no_sentence_with_training(corpus: Corpus) -> None:
    held_out = {s for d in write_dictations(corpus, 1, 400, held_out=True) for s in d.sentences}
    training = {s for d in write_dictations(corpus, 2, 4_000, held_out=False) for s in d.sentences}
    assert all(is_held_out(sentence) for sentence in held_out)
    assert not held_out & training
    # A template that holds several sentences is never held out: each of them is spoken in training in other company.
    assert not any("{period}" in sentence for sentence in held_out)


def test_markup_and_case_do_not_move_a_sentence_to_the_other_side() -> None:
    assert is_held_out("no acute fracture {comma} no effusion") == is_held_out("No acute  fracture no effusion")


def test_the_same_seed_writes_the_same_dictations(corpus: Corpus) -> None:
    first = list(write_dictations(corpus, 5, 50, held_out=False, free_words=0.1))
    assert first == list(write_dictations(corpus, 5, 50, held_out=False, free_words=0.1))


@pytest.mark.parametrize("name", ["handwritten_dev", "handwritten_report"])
def test_hand_written_evaluation_sets_are_in_no_training_text(corpus: Corpus, name: str) -> None:
    with (ASSETS / "evaluation" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    assert len(texts) >= 60
    assert not shared_runs(texts, corpus)


def test_demo_texts_are_in_no_training_text(corpus: Corpus) -> None:
    with (ASSETS / "demo-archive" / "texts.csv").open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    assert len(texts) >= 24
    assert not shared_runs(texts, corpus)


def test_a_copied_sentence_would_be_seen(corpus: Corpus) -> None:
    copied = next(s for s in sum(corpus.reports.values(), ()) if len(words_of(s)) > RUN)
    assert shared_runs([f"[FINDINGS] {copied.replace(' ', ' {comma} ', 1)} {{period}}"], corpus)


RUN = 8  # so many words in a row are no chance, and no set phrase either


def words_of(text: str) -> list[str]:
    return re.sub(r"\{[a-z ]+\}|\[[A-Z ]+\]", " ", text).lower().split()


def runs_of(text: str) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1)}


def shared_runs(texts: list[str], corpus: Corpus) -> set[tuple[str, ...]]:
    """Runs of words that ``texts`` share with free-form sentences, lexicon entries or dictations of the generator."""
    lexicon = [entry for entries in corpus.lexicon.values() for entry in entries]
    written = [d.text for d in write_dictations(corpus, 9, 6_000, held_out=False)]
    known = {run for text in [*sum(corpus.reports.values(), ()), *lexicon, *written] for run in runs_of(text)}
    return known & {run for text in texts for run in runs_of(text)}


def test_tokenizer_gives_every_dictation_back(corpus: Corpus) -> None:
    texts = [d.text for d in write_dictations(corpus, 3, 3_000, held_out=False, free_words=0.1)]
    tokenizer = build_tokenizer(texts, 320)
    assert len(tokenizer) <= 320
    assert tokenizer.pad_token_id == 0
    for dictation in write_dictations(corpus, 4, 300, held_out=True):
        pieces = tokenizer.convert_ids_to_tokens(tokenizer(dictation.text, add_special_tokens=False).input_ids)
        assert "".join(pieces).replace("▁", " ").strip() == dictation.text


def test_dictated_commands_are_single_pieces(corpus: Corpus) -> None:
    tokenizer = build_tokenizer([d.text for d in write_dictations(corpus, 3, 2_000, held_out=False)], 320)
    assert tokenizer.tokenize("[FINDINGS] {colon} {new paragraph} {period}") == [
        "▁[FINDINGS]",
        "▁{colon}",
        "▁{new",
        "▁paragraph}",
        "▁{period}",
    ]
