"""The guard takes hotwords back place by place, and what is left stays a text in time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dictalake.records import Piece
from tests.unit.decoding.test_hotwords import PIECES, guard, piece


def test_a_piece_before_a_shared_one_here_and_behind_it_there_is_not_taken_twice() -> None:
    biased = [piece("▁pi", 0), piece("▁a", 1), piece("▁left", 4), piece("▁ne", 8)]
    plain = [piece("▁a", 0), piece("▁pi", 1), piece("▁left", 4), piece("▁a", 8)]
    heard = [{"▁a": 0.5, "▁pi": 0.5}, {"▁pi": 0.5, "▁a": 0.5}, {"▁left": 1.0}, {"▁a": 1.0}, {"▁a": 0.9, "▁ne": 0.1}]
    assert guard(biased, plain, heard, 10.0, "pi") in (["▁pi", "▁a", "▁left", "▁a"], ["▁a", "▁pi", "▁left", "▁a"])


TOKENS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2), st.sampled_from(PIECES[3:])), max_size=6)


@given(biased=TOKENS, plain=TOKENS, most_nats=st.floats(0, 10), terms=st.sets(st.sampled_from(["pi", "left", "a"]), min_size=1))
def test_the_guard_repeats_no_piece_and_keeps_their_order_in_time(
    biased: list[tuple[int, int, str]], plain: list[tuple[int, int, str]], most_nats: float, terms: set[str]
) -> None:
    def place(tokens: list[tuple[int, int, str]]) -> list[Piece]:
        at, pieces = 0, []
        for pause, length, name in tokens:
            pieces.append(piece(name, at + pause, at + pause + length))
            at += pause + length
        return pieces

    # ``guard`` looks at the times.
    guard(place(biased), place(plain), [{name: 1 / len(PIECES) for name in PIECES}] * 12, most_nats, *terms)
