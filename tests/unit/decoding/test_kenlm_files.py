"""KenLM's files read as they lie: scores and states are KenLM's to the last bit, and what is unusual is left to KenLM.

``tests/fixtures/kenlm`` holds models of random numbers over the pieces of ``tests/beam_inputs.py``, written by KenLM's own
``build_binary`` from one ARPA file of order 4, and one of order 2: ``probing``, ``trie``, and ``trie`` with ``-q 8 -b 8``,
with ``-a 22``, and with both.
"""

from __future__ import annotations

import math
import shutil
import struct
from pathlib import Path
from typing import Any

import kenlm
import numpy as np
import pytest

from dictalake.acoustic.sparse import sparsify
from dictalake.config.sections import Decoding
from dictalake.decoding.base import open_decoder
from dictalake.decoding.beam import BeamDecoder
from dictalake.decoding.kenlm_file import find_lm, load_kenlm
from dictalake.decoding.native import kenlm_tables, language_model
from dictalake.decoding.native.kenlm_layout import map_kenlm_file
from dictalake.decoding.native.kenlm_tables import KenlmTables, open_tables
from dictalake.decoding.native.search import NativeSearch
from dictalake.decoding.native.tables import ASKED, MAPPED, PLAIN_WIDTH
from dictalake.decoding.native.token_prices import list_words
from dictalake.errors import ConfigError
from tests.beam_inputs import VOCABULARY, peaky

FILES = sorted((Path(__file__).parents[2] / "fixtures/kenlm").glob("*.kenlm"))
KINDS = [pytest.param(path, id=path.stem) for path in FILES]
WORDS = list_words(VOCABULARY)


def map_tables(path: Path) -> KenlmTables:
    file = map_kenlm_file(path)
    assert file is not None
    return KenlmTables(file, WORDS)


def lm_kind(decoder: Any) -> int:
    assert isinstance(decoder, BeamDecoder)
    search = decoder._search
    assert isinstance(search, NativeSearch)
    return search._lm.kind


@pytest.mark.parametrize("path", KINDS)
def test_scores_and_states_are_those_of_kenlm_to_the_last_bit(path: Path) -> None:
    tables, model, rng = map_tables(path), load_kenlm(str(path)), np.random.default_rng(1)
    numbers: dict[Any, int] = {}
    matched = set()
    for _ in range(60):
        state, theirs = 0, kenlm.State()
        model.BeginSentenceWrite(theirs)
        for _ in range(12):
            tried = [WORDS[number] for number in rng.integers(len(WORDS), size=5)]
            lengths = [model.BaseFullScore(theirs, word, kenlm.State()).ngram_length for word in tried]
            word, following = tried[int(np.argmax(lengths))], kenlm.State()
            found = model.BaseFullScore(theirs, word, following)
            matched.add(found.ngram_length)
            step = tables._look_up(state, int(tables.ids[WORDS.index(word)]))
            assert float(step["value"]) == found.log_prob
            key = tables.states["key"][int(step["next"])]
            assert numbers.setdefault(following, key) == key
            state, theirs = int(step["next"]), following
    assert len(set(numbers.values())) == len(numbers)
    assert max(matched) == model.order


@pytest.mark.parametrize("path", KINDS)
def test_words_and_the_score_of_nothing_are_those_of_kenlm(path: Path) -> None:
    tables, model = map_tables(path), load_kenlm(str(path))
    assert [tables.knows(word) for word in [*WORDS, "nowhere"]] == [word in model for word in [*WORDS, "nowhere"]]
    start, middle, end = kenlm.State(), kenlm.State(), kenlm.State()
    model.BeginSentenceWrite(start)
    assert tables.score_nothing() == model.BaseScore(start, "", middle) + model.BaseScore(middle, "</s>", end)


@pytest.mark.parametrize("path", KINDS)
def test_a_search_in_the_file_gives_the_lists_of_one_that_asks_kenlm(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kenlm_tables, "_FIRST_PLACES", 256)
    monkeypatch.setattr(kenlm_tables, "MOST_STATES", 100)
    config = Decoding(lm=str(path), beam_width=6)
    mapped = open_decoder(config, VOCABULARY)
    monkeypatch.setattr(language_model, "open_tables", lambda *given: None)
    asking = open_decoder(config, VOCABULARY)
    assert (lm_kind(mapped), lm_kind(asking)) == (MAPPED, ASKED)
    for seed in range(12):
        emissions = sparsify(peaky(seed, pieces=30), -6.0, 0.999, 0)
        assert mapped.decode(emissions) == asking.decode(emissions)


@pytest.mark.parametrize("width", [1, 40])
def test_tables_grow_while_a_recording_is_searched(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = next(path for path in FILES if path.stem == "quant-array-trie")
    config = Decoding(lm=str(path), beam_width=width)
    emissions = sparsify(peaky(5, pieces=120), -6.0, 0.999, 0)
    expected = open_decoder(config, VOCABULARY).decode(emissions)
    monkeypatch.setattr(kenlm_tables, "_FIRST_PLACES", 2)
    monkeypatch.setattr(kenlm_tables, "_FIRST_STATES", 600)  # for what is tried when it is opened
    assert open_decoder(config, VOCABULARY).decode(emissions) == expected


def test_only_the_table_that_is_full_grows() -> None:
    tables = map_tables(FILES[0])
    states, places = len(tables.states), len(tables.table)
    tables.filled["states"], tables.filled["places"] = states - 20, states
    tables.make_room(16)
    assert (len(tables.states), len(tables.table)) == (2 * states, places)
    tables.filled["places"] = places // 2 - 20
    tables.make_room(16)
    assert (len(tables.states), len(tables.table)) == (2 * states, 2 * places)


def test_many_beams_get_room_for_states_while_few_are_known() -> None:
    tables = map_tables(FILES[0])
    states, beams = len(tables.states), 1024 + PLAIN_WIDTH
    tables.filled["states"] = states - 2 * beams
    tables.make_room(beams)
    assert len(tables.states) == 2 * states


@pytest.mark.parametrize(("name", "most"), [("states", kenlm_tables.MOST_STATES), ("places", kenlm_tables.MOST_PLACES)])
def test_what_has_become_too_much_is_forgotten(name: str, most: int) -> None:
    tables = map_tables(FILES[0])
    tables.filled[name] = most
    tables.forget()
    assert tables.filled[name][0] == most
    tables.filled[name] = most + 1
    tables.forget()
    assert (tables.filled["states"][0], tables.filled["places"][0]) == (1, 0)


def test_a_file_that_scores_differently_is_left_to_kenlm(monkeypatch: pytest.MonkeyPatch) -> None:
    path, other_path = (next(path for path in FILES if path.stem == stem) for stem in ("trie", "bigram-trie"))
    assert open_tables(path, load_kenlm(str(path)), WORDS) is not None
    other = load_kenlm(str(other_path))
    assert open_tables(path, other, WORDS) is None
    monkeypatch.setattr(language_model, "load_kenlm", lambda path: other)
    assert lm_kind(open_decoder(Decoding(lm=str(path)), VOCABULARY)) == ASKED


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0x31, b"6"),  # another version of the format
        (0x58, b"\x07"),  # an order that no state holds
        (0x60, b"\x01"),  # another kind: hash tables with a third number
        (0x64, b"\x00"),  # without the list of words
        (0x68, b"\x09"),  # another version of the tables
        (0x6C, b"\x2e"),  # one more word than there are
        (0x6D, b"\x10"),  # more words than a state can name
        (0x7C, b"\x00\x00"),  # other sizes
    ],
)
def test_a_header_that_is_not_understood_is_left_to_kenlm(tmp_path: Path, at: int, value: bytes) -> None:
    path = Path(shutil.copy(next(path for path in FILES if path.stem == "quant-trie"), tmp_path / "lm"))
    assert map_kenlm_file(path) is not None
    bytes_ = bytearray(path.read_bytes())
    bytes_[at : at + len(value)] = value
    path.write_bytes(bytes_)
    assert map_kenlm_file(path) is None


def test_no_word_is_lost_if_the_file_does_not_count_unk(tmp_path: Path) -> None:
    path = next(path for path in FILES if path.stem == "probing")
    counted, bytes_ = map_kenlm_file(path), path.read_bytes()
    assert counted is not None
    # KenLM writes the count of an ARPA file without <unk> as it is: tables of words for one less, and all words behind them.
    order, multiplier = bytes_[0x58], float(np.frombuffer(bytes_, np.float32, 1, 0x5C)[0])
    count, hashes = len(counted.words), (0x6C + 8 * order + 7) // 8 * 8 + 8
    unigrams, bigrams = (int(counted.levels["start"][number]) for number in (0, 1))
    removed = 12 * (int(multiplier * count) - int(multiplier * (count - 1)))
    header = bytes_[:0x6C] + (count - 1).to_bytes(8, "little") + bytes_[0x74:hashes]
    (tmp_path / "lm").write_bytes(header + bytes_[hashes + removed : unigrams + 8 * count] + bytes_[bigrams:])
    uncounted = map_kenlm_file(tmp_path / "lm")
    assert uncounted is not None
    assert uncounted.words == counted.words
    assert KenlmTables(uncounted, WORDS).ids.tolist() == KenlmTables(counted, WORDS).ids.tolist()
    (tmp_path / "lm").write_bytes(bytes_ + b"more\0another\0")
    assert map_kenlm_file(tmp_path / "lm") is None


def test_what_is_no_kenlm_file_is_not_mapped(tmp_path: Path) -> None:
    path = tmp_path / "lm"
    for content in (b"", b"\\data\\\n", FILES[0].read_bytes()[:0x70], FILES[0].read_bytes()[:-20]):
        path.write_bytes(content)
        assert map_kenlm_file(path) is None


@pytest.mark.parametrize("path", KINDS)
def test_whatever_the_header_says_all_tables_lie_in_the_file(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    headers = [whole[:at] + bytes([value]) + whole[at + 1 :] for at in range(0x58, 0x90) for value in (0, 1, 0x7F, 0xFF)]
    headers += [whole[:0x5C] + struct.pack("<f", value) + whole[0x60:] for value in (math.inf, -math.inf, math.nan, 1e30)]
    headers += [whole[:0x6C] + bytes(8) + whole[0x74:], *(whole[:size] for size in range(0x6C, len(whole), 97))]
    for content in headers:
        (tmp_path / "lm").write_bytes(content)
        file = map_kenlm_file(tmp_path / "lm")
        if file is not None:
            assert file.levels["start"].min() > 0
            assert file.levels["start"].max() < content.index(b"<unk>\0")


@pytest.mark.parametrize("multiplier", [math.inf, math.nan])
def test_hash_tables_of_no_size_are_refused_before_kenlm_computes_with_it(tmp_path: Path, multiplier: float) -> None:
    whole = next(path for path in FILES if path.stem == "probing").read_bytes()
    (tmp_path / "lm").write_bytes(whole[:0x5C] + struct.pack("<f", multiplier) + whole[0x60:])
    with pytest.raises(ConfigError, match="its header makes no sense"):
        find_lm(Decoding(lm=str(tmp_path / "lm")))


@pytest.mark.parametrize("path", KINDS)
def test_damaged_tables_give_other_scores_but_nothing_outside_the_file_is_read(path: Path, tmp_path: Path) -> None:
    whole, rng = path.read_bytes(), np.random.default_rng(3)
    end = whole.index(b"<unk>\0")
    for number in range(8):
        damaged = bytearray(whole)
        for place in rng.integers(0xA0, end, size=40):
            damaged[place] = int(rng.integers(256))
        (tmp_path / f"{number}").write_bytes(damaged)
        file = map_kenlm_file(tmp_path / f"{number}")
        if file is not None:
            tables, state = KenlmTables(file, WORDS), 0
            for word in rng.integers(len(file.words), size=100):
                state = int(tables._look_up(state, int(word))["next"])
