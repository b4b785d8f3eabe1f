"""The account of a recording's time: its words, and how accounts add up."""

from __future__ import annotations

import pytest

from dictalake.audio.formats.account import CLOSED, REPAIRS, Account, add_accounts
from dictalake.records import REPAIR_WORDS


def test_each_word_has_a_meaning_and_an_advice() -> None:
    assert tuple(REPAIRS) == REPAIR_WORDS
    assert all(repair.meaning and repair.advice for repair in REPAIRS.values())


def test_a_word_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="mended"):
        CLOSED.also("mended")


def test_accounts_of_parts_add_up() -> None:
    parts = [Account(1.0, ("hole",)), Account(2.0, ("cut_end", "hole"), 2.0)]
    assert add_accounts(parts) == Account(3.0, ("cut_end", "hole"), 2.0)


def test_a_part_of_unknown_loss_makes_the_whole_unknown() -> None:
    assert add_accounts([Account(1.0), Account(None), Account(1.0)]) == Account(None)
