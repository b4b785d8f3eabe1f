"""What the benchmarks of the account say of their figures, and the check of other projects' files."""

from __future__ import annotations

import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from dictalake.records import Word
from jobs.benchmarks.account import summarise
from jobs.benchmarks.holes import damage, match
from jobs.check_real_files import Checked, compare, find_files, name_outcome


def test_the_cost_is_the_median_ratio_and_its_interval_holds_the_middle() -> None:
    before, after = [10.0] * 24, [10.0 + 0.1 * step for step in range(24)]
    found = summarise(before, after)
    assert found["cost_percent"] == pytest.approx(11.5, abs=0.1)
    low, high = found["interval_percent"]
    assert low < 11.5 < high
    assert high - low < 15


@pytest.mark.parametrize(("kind", "may_shrink"), [("wav-pcm16-16k", False), ("mp3-16k", False), ("flac-16k", True)])
def test_a_hole_is_where_it_is_said_to_end(kind: str, may_shrink: bool) -> None:
    data = bytes([7]) * 100_000
    lengths = set()
    for seed in range(40):
        damaged, end_s = damage(data, kind, 10.0, random.Random(seed))
        lengths.add(len(damaged) == len(data))
        first = next(at for at, byte in enumerate(damaged) if byte != 7) if len(damaged) == len(data) else None
        assert first is None or first / 10_000 < end_s
        assert damaged.endswith(data[-20_000:])
    assert lengths == ({True, False} if may_shrink else {True})


def word(text: str, start_s: float) -> Word:
    return Word(text, start_s, start_s + 0.2, 1.0)


def test_words_are_compared_with_themselves() -> None:
    before = [word("no", 1.0), word("acute", 1.5), word("distress", 2.0)]
    after = [word("acute", 1.52), word("distress", 2.0), word("no", 3.0)]
    assert [(b.word, round(a.start_s - b.start_s, 2)) for b, a in match(before, after)] == [("acute", 0.02), ("distress", 0.0)]


def test_a_word_among_its_likes_is_left_out_where_its_neighbours_changed() -> None:
    before = [word("the", 1.0), word("lung", 1.5), word("the", 2.0)]
    after = [word("a", 1.0), word("long", 1.5), word("the", 2.0)]
    assert list(match(before, after)) == []
    whole = [*before, word("heart", 2.5)]
    assert [a.start_s for _, a in match(whole, whole)] == [1.0, 1.5, 2.0, 2.5]


def test_each_content_is_found_once_and_only_audio(tmp_path: Path) -> None:
    first, second = tmp_path / "a-1", tmp_path / "b-2"
    first.mkdir()
    second.mkdir()
    sound = tmp_path / "sound"
    sound.write_bytes(b"RIFF")
    with tarfile.open(first / "a-1.tar.gz", "w:gz") as packed:
        for name in ("a-1/tests/one.wav", "a-1/setup.py"):
            packed.add(sound, name)
    with zipfile.ZipFile(second / "b-2.whl", "w") as packed_wheel:
        packed_wheel.writestr("b/same.WAV", b"RIFF")
        packed_wheel.writestr("b/other.mp3", b"ID3")
    assert [name for name, _ in find_files(tmp_path)] == ["a-1/tests/one.wav", "b-2/other.mp3"]


def test_a_difference_without_a_reason_is_shown_as_such() -> None:
    ours = {"duration_s": 1.0, "rate_hz": 16_000, "channels": 1, "codec": "mp3", "lost_s": 0.0, "repairs": []}
    theirs = {"duration_s": 1.05, "rate_hz": 16_000, "channels": 1, "codec": "mp3", "tracks": 1}
    same = Checked("same.mp3", ours, None, theirs)
    longer = Checked("longer.mp3", ours, None, {**theirs, "duration_s": 2.0})
    refused = Checked("refused.mp3", None, "corrupt_audio: nothing", theirs)
    assert list(compare(same)) == []
    for one in (longer, refused):
        one.differences = list(compare(one))
        assert len(one.differences) == 1
    assert [name_outcome(one) for one in (same, longer, refused)] == ["agrees", *["differs, NOT explained"] * 2]
