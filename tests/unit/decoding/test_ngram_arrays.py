"""Language models as arrays: they score as KenLM does, are built once, and what is unusual is left to KenLM."""

from __future__ import annotations

import gzip
import lzma
import stat
from collections.abc import Callable
from pathlib import Path

import kenlm
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dictalake.acoustic.sparse import sparsify
from dictalake.config.sections import Decoding
from dictalake.decoding.base import open_decoder
from dictalake.decoding.native import arpa, language_model, ngram_cache
from dictalake.decoding.native.arpa import UnusualArpaError
from dictalake.decoding.native.language_model import score_words
from dictalake.decoding.native.ngram_arrays import NgramModel, build_ngrams
from dictalake.decoding.native.ngram_cache import open_ngrams
from tests.beam_inputs import VOCABULARY, peaky

WORDS = ["<unk>", "<s>", "</s>", "a", "#b", "ç", "{period}"]


def write_random_arpa(path: Path, seed: int, order: int, *, ending: str = "\n", unknown: bool = True) -> Path:
    """A model whose contexts are all there, though not all of their ends: as pruning leaves it."""
    rng = np.random.default_rng(seed)
    levels: list[list[tuple[str, ...]]] = [[(word,) for word in WORDS[0 if unknown else 1 :]]]
    for _ in range(order - 1):
        longer = [
            (*context, word)
            for context in levels[-1]
            if context[-1] not in ("</s>", "<unk>")
            for word in WORDS[2:]
            if rng.random() < (0.5 if (*context, word)[1:] in levels[-1] else 0.01)
        ]
        levels.append([longer[place] for place in rng.permutation(len(longer))])
    lines = ["", "\\data\\", *(f"ngram {n}={len(level)}" for n, level in enumerate(levels, start=1)), ""]
    for n, level in enumerate(levels, start=1):
        lines.append(f"\\{n}-grams:")
        for words in level:
            backoff = f"\t{-rng.random():.6f}" if n < order and words[-1] != "</s>" and rng.random() < 0.8 else ""
            lines.append(f"{-5 * rng.random():.7g}\t{' '.join(words)}{backoff}")
        lines.append("")
    path.write_bytes(ending.join([*lines, "\\end\\", ""]).encode())
    return path


def ask_kenlm(path: Path, words: list[str]) -> float:
    options = kenlm.Config()
    options.show_progress, options.arpa_complain = False, kenlm.ARPALoadComplain.NONE
    try:
        return float(kenlm.Model(str(path), options).score(" ".join(words), bos=True, eos=True))
    except OSError as error:
        assume("Avoid pruning" not in str(error))  # KenLM takes only so many ends that are missing
        raise


def ask_arrays(model: NgramModel, words: list[str]) -> float:
    ids = {word: index for index, word in enumerate(model.words)}
    numbers = np.array([ids.get(word, ids["<unk>"]) for word in [*words, "</s>"]])
    return score_words(model.ngrams, model.contexts, 1 + ids["<s>"], numbers)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.integers(2, 6), words=st.lists(st.sampled_from([*WORDS[3:], "other"]), max_size=9))
def test_scores_are_those_of_kenlm(tmp_path_factory: pytest.TempPathFactory, seed: int, order: int, words: list[str]) -> None:
    path = write_random_arpa(tmp_path_factory.mktemp("lm") / "lm.arpa", seed, order, unknown=seed % 3 > 0)
    assert ask_arrays(build_ngrams(path), words) == pytest.approx(ask_kenlm(path, words), abs=1e-4)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
@pytest.mark.parametrize("chunk_bytes", [64, 1 << 22])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_packing_chunks_and_line_ends_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes], chunk_bytes: int, ending: str
) -> None:
    expected = build_ngrams(write_random_arpa(tmp_path / "lm.arpa", 1, 4))
    monkeypatch.setattr(arpa, "_CHUNK_BYTES", chunk_bytes)
    packed = tmp_path / "packed"
    packed.write_bytes(pack(write_random_arpa(tmp_path / "lm.arpa", 1, 4, ending=ending).read_bytes()))
    found = build_ngrams(packed)
    assert found.words == expected.words
    assert np.array_equal(found.ngrams, expected.ngrams)
    assert np.array_equal(found.contexts, expected.contexts)


@pytest.mark.parametrize("text", ["-0.5", "-1e-3", "-1.25E+1", "+0", "-99", "-.5", "-12345.678901234567"])
def test_numbers_are_read_as_python_reads_them(tmp_path: Path, text: str) -> None:
    path = write_random_arpa(tmp_path / "lm.arpa", 1, 2)
    lines = path.read_text().splitlines()
    row = lines.index("\\2-grams:") + 1
    lines[row] = f"{text}\t{lines[row].split(chr(9))[1]}"
    path.write_text("\n".join(lines))
    model = build_ngrams(path)
    first = 1 + model.words.index(lines[row].split("\t")[1].split()[0])
    children = model.ngrams[model.contexts[first]["first"] : model.contexts[first + 1]["first"]]
    assert np.float32(float(text)) in children["logp"]


def test_arrays_are_built_once_and_only_this_user_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write_random_arpa(tmp_path / "lm.arpa", 3, 3)
    built = open_ngrams(path)
    monkeypatch.setattr(ngram_cache, "build_ngrams", None)
    again = open_ngrams(path)
    assert np.array_equal(built.ngrams, again.ngrams)
    assert not again.ngrams.flags.writeable
    (folder,) = (one for one in ngram_cache.cache_folder().iterdir() if one.is_dir())
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_damaged_cache_is_built_anew_and_another_file_has_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write_random_arpa(tmp_path / "lm.arpa", 3, 3)
    expected = open_ngrams(path).ngrams.copy()
    (folder,) = (one for one in ngram_cache.cache_folder().iterdir() if one.is_dir())
    np.save(folder / "ngrams.npy", expected[:-1])
    assert np.array_equal(open_ngrams(path).ngrams, expected)
    assert not np.array_equal(open_ngrams(write_random_arpa(path, 4, 3)).ngrams, expected)


def test_without_a_cache_folder_they_are_built_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    model = open_ngrams(write_random_arpa(tmp_path / "lm.arpa", 3, 3))
    assert not model.ngrams.flags.writeable
    assert len(model.words) == len(WORDS)


@pytest.mark.parametrize(
    ("found", "put"),
    [
        ("\\end\\", ""),
        ("\\3-grams:", "\\5-grams:"),
        ("ngram 3=", "ngram 3=1"),
        ("<s>", "<t>"),
        ("\ta #b", "\ta #nowhere"),
        ("\n\\3-grams:\n-", "\n\\3-grams:\n"),  # a positive score
        ("\n\\3-grams:\n-", "\n\\3-grams:\nnan\t"),
    ],
)
def test_what_is_unusual_is_left_to_kenlm(tmp_path: Path, found: str, put: str) -> None:
    path = write_random_arpa(tmp_path / "lm.arpa", 2, 3)
    text = path.read_text()
    assert found in text
    path.write_text(text.replace(found, put))
    with pytest.raises(UnusualArpaError):
        build_ngrams(path)


@pytest.mark.parametrize("known_pieces", [True, False])
def test_a_search_over_arrays_and_one_that_asks_kenlm_give_the_same(
    random_lm: str, known_pieces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Decoding(lm=random_lm, known_pieces=known_pieces)
    arrays = open_decoder(config, VOCABULARY)
    monkeypatch.setattr(language_model, "_open_arrays", lambda path: None)
    monkeypatch.setattr("dictalake.decoding.native.kenlm_states.MOST_STATES", 5)
    asking = open_decoder(config, VOCABULARY)
    for seed in range(20):
        emissions = sparsify(peaky(seed, pieces=20), -6.0, 0.999, 0)
        mine, theirs = asking.decode(emissions), arrays.decode(emissions)
        assert [[piece.token_id for piece in one.pieces] for one in mine] == [
            [piece.token_id for piece in one.pieces] for one in theirs
        ]
        assert [one.total_score for one in mine] == pytest.approx([one.total_score for one in theirs], abs=1e-3)
