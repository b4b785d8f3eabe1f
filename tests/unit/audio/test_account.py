"""Of every kind of damaged, joined, unclosed or oddly wrapped file: nothing of its sound is missing without a word."""

from __future__ import annotations

import numpy as np
import pytest

from dictalake.audio.formats.account import CLOSED
from dictalake.audio.formats.read_audio import read_audio
from dictalake.errors import LoadError
from tests.coded_sound import RATE_HZ, make_coded_sound, place
from tests.damaged_audio.encodings import make_undamaged
from tests.damaged_audio.kinds import KINDS
from tests.damaged_audio.truth import DamagedFile, check_account


def find_fault(file: DamagedFile) -> str | None:
    try:
        audio = read_audio(file.data, "r1")
    except LoadError as error:
        return None if error.reason in file.or_error else f"{file.name}: {error.reason}: {error.detail}"
    try:
        check_account(file, audio)
    except AssertionError as fault:
        return str(fault).splitlines()[0]
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_missing_repeated_or_moved_without_a_word(kind: str) -> None:
    faults = [fault for file in KINDS[kind]() if (fault := find_fault(file))]
    assert not faults, "\n".join(["", *faults])


def test_the_account_of_an_undamaged_file_is_closed() -> None:
    accounts = {file.name: read_audio(file.data, "r1").account for file in make_undamaged()}
    assert {name: account for name, account in accounts.items() if account != CLOSED} == {}


def test_pieces_of_a_known_sound_are_found_where_they_are() -> None:
    sound = make_coded_sound(4.0, 1)
    second = RATE_HZ
    quiet = np.random.default_rng(1).normal(0, 0.02, 4 * second)
    whole = place(sound, sound)
    assert (whole.found_s, whole.missing_s, whole.moved_s, whole.repeated_s, whole.spurious_s) == (4.0, 0, 0, 0, 0)
    silence = np.concatenate([sound[:second], np.zeros(second), sound[2 * second :]])
    assert place(silence, sound).missing_s == pytest.approx(1.0, abs=0.11)
    assert place(silence, sound, [(1.0, 2.0)]).missing_s == 0
    moved = np.concatenate([sound[:second], sound[2 * second :]])
    assert place(moved, sound).missing_s == pytest.approx(1.0, abs=0.21)
    assert place(moved, sound).moved_s == pytest.approx(2.0, abs=0.21)
    repeated = np.concatenate([sound[:second], sound[:second], sound[2 * second :]])
    assert place(repeated, sound).repeated_s == pytest.approx(1.0, abs=0.11)
    noise = np.concatenate([sound[:second], quiet[:second], sound[2 * second :]])
    assert place(noise, sound).spurious_s == pytest.approx(1.0, abs=0.11)
    assert place(sound[:second], sound).missing_s == pytest.approx(3.0, abs=0.11)
