"""Decoder settings are searched on cached emissions, and confidence is fitted to what was right."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dictalake.acoustic.checkpoint import find_checkpoint
from dictalake.cli.main import run_command
from dictalake.config.load import load_config
from dictalake.config.sections import Confidence
from dictalake.errors import ConfigError
from dictalake.evaluation.calibration import (
    apply_confidence,
    area_under_roc,
    expected_calibration_error,
    fit_confidence,
    label_words,
    measure_reliability,
)
from dictalake.evaluation.emission_cache import read_cache
from dictalake.evaluation.normalise import normalise_medasr
from dictalake.evaluation.tuning import check_apart, open_bench
from dictalake.evaluation.tuning_page import route
from dictalake.records import Recording
from dictalake.workflow.identity import read_vocabulary

DEMO = Path(__file__).parents[3] / "pipelines/dictalake/assets/demo-archive/references.csv"


def test_words_are_right_where_they_are_aligned_to_equal_ones() -> None:
    words = ["no", "cute", "54-year-old", "{new paragraph}", "{}", "male"]
    labels = label_words("no acute 54 year old {new paragraph} female", words, normalise_medasr)
    assert labels == [True, False, True, True, None, False]


def test_a_word_of_which_a_part_is_wrong_is_wrong() -> None:
    assert label_words("54 year old", ["54-year-cold"], normalise_medasr) == [False]
    assert label_words("", ["word"], normalise_medasr) == [False]
    assert label_words("word", [], normalise_medasr) == []


def test_calibration_error_is_the_mean_distance_between_being_sure_and_being_right() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.15, 0.15])
    is_right = np.array([True, True, True, False, False, False])
    bins = measure_reliability(confidence, is_right)
    assert [(b.words, round(b.accuracy, 2)) for b in bins] == [(2, 0.0), (4, 0.75)]
    assert expected_calibration_error(confidence, is_right) == pytest.approx((4 * 0.2 + 2 * 0.15) / 6)
    assert math.isnan(expected_calibration_error(confidence[:0], is_right[:0]))


def test_area_under_roc_is_the_chance_that_a_right_word_is_surer() -> None:
    assert area_under_roc(np.array([0.9, 0.4, 0.6, 0.4]), np.array([True, True, False, False])) == pytest.approx(0.625)
    assert math.isnan(area_under_roc(np.array([0.9]), np.array([True])))


def make_words(
    seed: int, temperature: float, bias: float, support: float, count: int = 20_000
) -> tuple[np.ndarray, np.ndarray]:
    """Evidence, and words that are right as often as a calibration of these values says."""
    rng = np.random.default_rng(seed)
    evidence = np.stack([rng.normal(2, 3, count), rng.normal(1, 2, count)], axis=1)
    truth = Confidence(temperature=temperature, bias=bias, nbest_weight=support)
    return evidence, rng.random(count) < apply_confidence(evidence, truth)


def test_fit_finds_the_calibration_that_made_the_words() -> None:
    evidence, is_right = make_words(1, temperature=2.5, bias=-0.7, support=0.5)
    fitted = fit_confidence(evidence, is_right)
    assert (fitted.temperature, fitted.bias, fitted.nbest_weight) == pytest.approx((2.5, -0.7, 0.5), abs=0.1)
    unseen, unseen_right = make_words(2, temperature=2.5, bias=-0.7, support=0.5)
    uncalibrated = expected_calibration_error(apply_confidence(unseen, Confidence.model_validate({})), unseen_right)
    assert expected_calibration_error(apply_confidence(unseen, fitted), unseen_right) < 0.015 < 0.1 < uncalibrated


@given(st.integers(0, 1000), st.integers(0, 30), st.booleans())
@settings(max_examples=25)
def test_fit_of_few_words_or_of_only_right_ones_stays_within_bounds(seed: int, words: int, all_right: bool) -> None:
    rng = np.random.default_rng(seed)
    fitted = fit_confidence(rng.normal(0, 5, (words, 2)), np.full(words, True) if all_right else rng.random(words) < 0.5)
    assert fitted.temperature > 0
    assert np.isfinite(fitted.bias)


def test_the_least_sure_transcripts_go_first() -> None:
    shares, rates = route(np.array([5, 0, 1]), np.array([10, 10, 10]), np.array([0.1, 0.9, 0.5]))
    assert shares == pytest.approx([0, 1 / 3, 2 / 3])
    assert rates == pytest.approx([6 / 30, 1 / 20, 0])


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned")
    with DEMO.open() as file:
        rows = list(csv.DictReader(file))
    for name, part in (("dev", rows[:12:2]), ("held-out", rows[1:12:2])):
        with (out / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows({**row, "uri": str(DEMO.parent / row["uri"])} for row in part)
    arguments = ["--archive.manifest", str(out / "dev.csv"), "--held-out", str(out / "held-out.csv"), "--processes", "1"]
    arguments += ["--archive.allowed", str(DEMO.parent)]
    assert run_command("tune", [*arguments, "--decoding.word_score", "1.0", "--decoding.nbest", "5", "--out", str(out)]) == 0
    return out


def test_tuning_writes_settings_that_are_a_configuration_and_are_no_worse(tuned: Path) -> None:
    config = load_config(tuned / "tuned.yaml")
    written = yaml.safe_load((tuned / "tuned.yaml").read_text())
    assert config.decoding.lm_weight == written["decoding"]["lm_weight"]
    assert config.decoding.lm == "embedded:medasr-mini/lm_6.kenlm"
    assert config.confidence.temperature == written["confidence"]["temperature"]
    of_dev = json.loads((tuned / "tuning.json").read_text())["sets"]["dev"]
    assert of_dev["wer_after"] <= of_dev["wer_before"]
    assert of_dev["words"] > 50


def test_the_file_alone_gives_the_rate_that_was_measured(tuned: Path) -> None:
    config = load_config(tuned / "tuned.yaml")
    vocabulary, grid = read_vocabulary(find_checkpoint(config.acoustic))
    figures = json.loads((tuned / "tuning.json").read_text())["sets"]
    rates = []
    for cache in tuned.glob("emissions-*.parquet"):
        with open_bench(cache, config, vocabulary, grid, 1) as bench:
            rates.append(100 * bench.try_settings({}, "medasr").errors.rate)
    assert sorted(rates) == pytest.approx(sorted(figures[name]["wer_after"] for name in ("dev", "held-out")))


def test_held_out_recordings_are_others_than_those_tuned_on(tuned: Path) -> None:
    sets = json.loads((tuned / "tuning.json").read_text())["sets"]
    heard = [{one.recording_id for one in read_cache(cache)} for cache in tuned.glob("emissions-*.parquet")]
    assert len(heard) == 2
    assert not heard[0] & heard[1]
    assert sorted(of_set["recordings"] for of_set in sets.values()) == sorted(
        sum(one.reason is None for one in read_cache(cache)) for cache in tuned.glob("emissions-*.parquet")
    )
    assert sets["held-out"]["words"] != sets["dev"]["words"]


def test_page_has_pictures_and_no_text_of_a_recording(tuned: Path) -> None:
    page = (tuned / "tuning.html").read_text()
    assert page.count("<svg") == 3
    words = {word for one in read_cache(next(tuned.glob("emissions-*.parquet"))) for word in (one.reference or "").split()}
    assert not [word for word in words if len(word) > 7 and f" {word} " in page]


def name(uri: str, reference: str) -> Recording:
    return Recording(uri, uri, "1", 10, metadata={"reference": reference})


def test_sets_that_share_recordings_are_refused_and_shared_texts_are_told() -> None:
    dev = [name("a.wav", "no fracture {period}"), name("b.wav", "clear lungs"), name("e.wav", "")]
    assert check_apart(dev, [name("c.wav", "another text"), name("d.wav", "")]) is None
    warning = check_apart(dev, [name("c.wav", "No fracture."), name("d.wav", "another text")])
    assert warning is not None
    assert warning.startswith("warning: 1 of the 2 held-out recordings have a reference text that was tuned on too")
    newer = Recording("another id", "b.wav", "2", 10, metadata={"reference": "x"})
    with pytest.raises(ConfigError, match=r"^--held-out: 1 of its 2 recordings are in the manifest to tune on too"):
        check_apart(dev, [newer, name("c.wav", "another text")])
