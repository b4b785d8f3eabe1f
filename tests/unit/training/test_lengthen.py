"""Long dictations made of short utterances: whose, how long, with which pauses, and where each part lies."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from dictalake.cli.main import run_command
from dictalake.errors import ConfigError
from dictalake.training.augment import SAMPLE_RATE_HZ
from dictalake.training.lengthen import LEVEL_MOST_DB, LongDictation, plan_dictation, render
from dictalake.training.utterances import TrainingUtterance

# Utterance n of a voice lasts 3 + n / 10 s and 7 n samples, and says n + 1 words.
LENGTHS = {f"{voice}-{n}": 3 * SAMPLE_RATE_HZ + 1607 * n for voice in ("ann", "bob") for n in range(40)}
UTTERANCES = [
    TrainingUtterance(path, " ".join(f"{path}.{word}" for word in range(int(path[4:]) + 1)), length / SAMPLE_RATE_HZ, path[:3])
    for path, length in LENGTHS.items()
]


def plan(seed: int, number: int = 0, least_s: float = 20.0, most_s: float = 100.0) -> LongDictation:
    return plan_dictation(UTTERANCES, LENGTHS, seed, number, least_s, most_s)


@given(seed=st.integers(0, 10_000), number=st.integers(0, 100))
def test_any_dictation_is_of_one_voice_in_range_with_bounded_pauses(seed: int, number: int) -> None:
    dictation = plan(seed, number)
    assert 20.0 <= dictation.seconds <= 100.0
    assert {part.utterance.voice for part in dictation.parts} == {dictation.voice}
    assert len({part.utterance.path for part in dictation.parts}) == len(dictation.parts)
    assert all(part.end - part.start == LENGTHS[part.utterance.path] for part in dictation.parts)
    edges = [0, *(edge for part in dictation.parts for edge in (part.start, part.end)), dictation.samples]
    pauses_s = [(after - before) / SAMPLE_RATE_HZ for before, after in zip(edges[::2], edges[1::2], strict=True)]
    assert all(0.2 <= pause_s <= 6.0 for pause_s in pauses_s)
    assert all(abs(part.level_db) <= LEVEL_MOST_DB for part in dictation.parts)


@given(seed=st.integers(0, 10_000))
def test_reference_is_the_texts_joined_and_parts_say_where_their_words_begin(seed: int) -> None:
    dictation = plan(seed)
    words = dictation.reference.split(" ")
    for part in dictation.parts:
        own = part.utterance.reference.split(" ")
        assert words[part.first_word : part.first_word + len(own)] == own
    assert sum(len(part.utterance.reference.split(" ")) for part in dictation.parts) == len(words)
    told = json.loads(dictation.parts_json())
    exact = [[round(start_s * SAMPLE_RATE_HZ), round(end_s * SAMPLE_RATE_HZ), word] for start_s, end_s, word in told]
    assert exact == [[part.start, part.end, part.first_word] for part in dictation.parts]


def test_pauses_and_lengths_follow_the_distribution_that_is_stated() -> None:
    dictations = [plan(5, number) for number in range(300)]
    pauses_s = np.array([(b.start - a.end) / SAMPLE_RATE_HZ for dictation in dictations for a, b in pairwise(dictation.parts)])
    thinking = pauses_s > 2.0
    assert 0.07 < thinking.mean() < 0.13
    assert 0.65 < np.median(pauses_s[~thinking]) < 0.75
    assert 3.7 < pauses_s[thinking].mean() < 4.3
    # Log-uniform from 20 to 100 s: half of them are below √(20 · 100) s, less the part of an utterance that goes beyond.
    assert 0.35 < np.mean([dictation.seconds < np.sqrt(20 * 100) for dictation in dictations]) < 0.5


def test_same_seed_and_number_give_the_same_dictation_and_others_another() -> None:
    assert plan(3, 7) == plan(3, 7)
    assert len({plan(seed, number).reference for seed in range(3) for number in range(3)}) == 9


def test_waveform_holds_each_part_at_its_place_over_a_floor_of_noise() -> None:
    dictation = plan(11)
    tone = {path: np.tile(np.float32([0.5, -0.5]), LENGTHS[path])[: LENGTHS[path]] for path in LENGTHS}
    waveform = render(dictation, tone.__getitem__)
    assert waveform.shape == (dictation.samples,)
    assert waveform.dtype == np.float32
    silent = np.ones(dictation.samples, bool)
    for part in dictation.parts:
        silent[part.start : part.end] = False
        level = 10 ** ((dictation.peak_dbfs + part.level_db) / 20)
        sign = np.sign(tone[part.utterance.path])
        noise = waveform[part.start : part.end] - level * sign
        assert np.sqrt(np.mean(noise**2)) == pytest.approx(10 ** (dictation.noise_dbfs / 20), rel=0.02)
    assert np.sqrt(np.mean(waveform[silent] ** 2)) == pytest.approx(10 ** (dictation.noise_dbfs / 20), rel=0.02)
    assert np.count_nonzero(waveform[silent] == 0) < 5
    assert np.array_equal(waveform, render(dictation, tone.__getitem__))


def test_only_a_voice_with_enough_to_say_is_taken() -> None:
    short = [utterance for utterance in UTTERANCES if utterance.voice == "ann" or utterance.path in ("bob-0", "bob-1")]
    assert {plan_dictation(short, LENGTHS, 1, number, 20, 100).voice for number in range(50)} == {"ann"}
    with pytest.raises(ConfigError, match=r"no voice has \d+ s of speech, the most is 6 s"):
        plan_dictation(short[-2:], LENGTHS, 1, 0, 20, 100)


def test_range_that_no_row_of_utterances_can_hit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--least-s 10 --most-s 10.1: the utterances are too long for so narrow a range"):
        _ = [plan(1, number, 10.0, 10.1) for number in range(20)]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = [("uri", "reference", "voice")]
    for n in range(12):
        samples = rng.uniform(-0.3, 0.3, SAMPLE_RATE_HZ * 2 + n)
        soundfile.write(tmp_path / f"{n}.wav", samples, SAMPLE_RATE_HZ, subtype="PCM_16")
        rows.append((f"{n}.wav", f"text {n} {{period}}", "ann" if n % 2 else "bob"))
    with (tmp_path / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return tmp_path / "manifest.csv"


def test_job_writes_flac_files_that_are_what_the_manifest_says(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--manifest", str(manifest), "--least-s", "5", "--most-s", "12", "--seed", "2"]
    assert run_command("lengthen", [*options, "--out", str(tmp_path / "two"), "--count", "2"]) == 0
    assert run_command("lengthen", [*options, "--out", str(tmp_path / "three"), "--count", "3"]) == 0
    two, three = (_rows(tmp_path / name / "manifest.csv") for name in ("two", "three"))
    assert two == three[:2]
    assert list(three[0]) == ["uri", "reference", "voice", "seconds", "parts"]
    for row in three:
        samples, rate_hz = soundfile.read(tmp_path / "three" / row["uri"])
        info = soundfile.info(tmp_path / "three" / row["uri"])
        assert (info.format, info.subtype, rate_hz, info.channels) == ("FLAC", "PCM_16", SAMPLE_RATE_HZ, 1)
        assert len(samples) == float(row["seconds"]) * SAMPLE_RATE_HZ
        starts = [int(word) for _, _, word in json.loads(row["parts"])]
        assert [row["reference"].split()[start] for start in starts] == ["text"] * len(starts)
    for row in two:
        assert (tmp_path / "two" / row["uri"]).read_bytes() == (tmp_path / "three" / row["uri"]).read_bytes()
    assert "3 dictations of" in capsys.readouterr().out


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--count", "0"], "--count 0: must be at least 1"),
        (["--seed", "-1"], "--seed -1: must be 0 or more"),
        (["--least-s", "9", "--most-s", "5"], "--least-s 9 --most-s 5: must be above 0, and the first smaller than the second"),
    ],
)
def test_impossible_options_are_refused(manifest: Path, tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_command("lengthen", ["--manifest", str(manifest), "--out", str(tmp_path / "out"), *options])
