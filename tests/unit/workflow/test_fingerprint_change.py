"""A run whose fingerprint the lake does not know says what that means before it lists anything; nothing here starts Ray."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dictalake.acoustic.checkpoint import find_checkpoint
from dictalake.cli.main import run_command
from dictalake.config.load import load_config
from dictalake.config.locations import resolve
from dictalake.config.sections import Config
from dictalake.errors import ConfigError, RunError
from dictalake.lake import superseded
from dictalake.lake.fingerprints import FingerprintLog, promote, read_fingerprints
from dictalake.lake.query import connect
from dictalake.lake.runs import RunLog, RunRecord, describe_config
from dictalake.transcript.provenance import Provenance
from dictalake.workflow.fingerprint_change import compare_parts, find_new, take_name, tell_of_new
from dictalake.workflow.identity import identify
from dictalake.workflow.standing import record_request, settle
from tests.truth_lake import A, commit, make_version, show


def configure(lake: Path, **keys: str) -> Config:
    pairs = [(key.replace("__", "."), value) for key, value in keys.items()]
    return load_config("demo", [("lake.uri", str(lake)), ("decoding.lm", "null"), *pairs], environment={})


def name(config: Config) -> Provenance:
    return identify(config, find_checkpoint(config.acoustic))


def fill(config: Config, *uris: str, day: int = 1) -> Provenance:
    """What a run leaves in the lake, without the run."""
    provenance = take_name(config, name(config))
    commit(config.lake, *(make_version(uri, day=day, fingerprint=provenance.fingerprint) for uri in uris))
    record_request(config, provenance)
    text, config_hash = describe_config(config)
    at = {"at": datetime(2026, 3, day, tzinfo=UTC), "run_id": f"run-{day}", "fingerprint": provenance.fingerprint}
    hashes = {"acoustic_hash": provenance.acoustic_hash, "decoding_hash": provenance.decoding_hash}
    start = RunRecord(event="started", config=text, config_hash=config_hash, **hashes, **at)
    RunLog(config.lake).append(start, RunRecord(event="finished", ok=len(uris), audio_hours=2.0, wall_s=3600.0, **at))
    settle(config, provenance, promote=False, is_complete=True)
    return provenance


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


def test_a_fingerprint_that_is_there_or_a_lake_without_rows_is_no_news(lake: Path) -> None:
    config = configure(lake)
    assert find_new(config, name(config)) is None
    fill(config, "gs://a/1")
    assert find_new(config, name(config)) is None


def test_what_differs_how_much_is_done_and_what_it_costs_is_said(lake: Path) -> None:
    old = fill(configure(lake), "gs://a/1", "gs://a/2")
    priced = {"report__price_per_hour": "3", "report__currency": "EUR"}
    config = configure(lake, decoding__beam_width="9", windows__overlap_s="4", **priced)
    new = find_new(config, name(config))
    assert new is not None
    assert (new.other, new.recordings) == (old.fingerprint, 2)
    assert new.differences == ("decoding.beam_width 8 → 9", "windows.overlap_s 2.0 → 4.0")
    # 2 audio hours an hour, at 3 EUR an hour.
    assert new.cost == pytest.approx(new.audio_s / 3600 / 2 * 3)
    with pytest.raises(ConfigError) as refused:
        tell_of_new(config, name(config), "refuse")
    line = str(refused.value)
    assert "\n" not in line
    assert line.startswith(f"fingerprint {new.fingerprint} is new to this lake and differs from {old.fingerprint} in decoding")
    assert line.endswith("give --new-fingerprint to begin that, or set these keys back")
    assert "about 0.00 EUR" in line


def test_nightly_refuses_before_it_lists_and_backfill_does_not(
    lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(configure(lake), "gs://a/1")

    def list_nothing(*_: Any) -> None:
        raise AssertionError("the archive was listed")

    from dictalake.workflow import run as story

    monkeypatch.setattr(story, "scan_recordings", list_nothing)
    keys = ["--lake.uri", str(lake), "--archive.uri", str(tmp_path), "--decoding.lm", "null", "--decoding.beam_width", "9"]
    with pytest.raises(ConfigError, match="is new to this lake"):
        run_command("nightly", keys)
    for command in ("nightly", "backfill"):
        with pytest.raises(AssertionError, match="the archive was listed"):
            run_command(command, [*keys, *(["--new-fingerprint"] if command == "nightly" else [])])


def test_a_run_of_before_0_2_is_described_by_its_record(lake: Path) -> None:
    old = fill(configure(lake), "gs://a/1")
    shutil.rmtree(lake / "fingerprints")  # as 0.1.0 left it
    config = configure(lake, decoding__beam_width="9")
    new = find_new(config, name(config))
    assert new is not None
    assert (new.other, new.differences) == (old.fingerprint, ("decoding.beam_width 8 → 9",))


def test_a_change_of_model_decoder_or_files_is_named() -> None:
    old = {
        "model": "m",
        "acoustic": {"kind": "ctc", "model_sha256": "1", "windows": {"length_s": 20.0}},
        "decoding": {"kind": "beam"},
    }
    other_files = {**old, "acoustic": {**old["acoustic"], "model_sha256": "2"}}  # type: ignore[dict-item]
    assert list(compare_parts(old, other_files)) == ["the files of model m"]
    assert list(compare_parts(old, {**other_files, "model": "n"})) == ["model m → n"]
    greedy = {**old, "decoding": {"kind": "greedy"}}
    beam = {**old, "decoding": {"kind": "beam", "beam_width": 8, "lm_sha256": "3"}}
    assert list(compare_parts(greedy, beam)) == ["decoding.kind greedy → beam"]
    assert list(compare_parts(old, beam)) == ["language model (new)", "decoding.beam_width none → 8"]
    whisper = {
        "model": "w",
        "acoustic": {"kind": "whisper", "model_sha256": "4", "language": "en"},
        "decoding": {"kind": "none"},
    }
    assert list(compare_parts(old, whisper)) == ["acoustic.kind ctc → whisper", "decoding.kind beam → none", "model m → w"]


def lay_out_anew(config: Config, folder: Path) -> Config:
    """The same model with its configuration in another layout: 0.1.0 gave that another fingerprint."""
    shutil.copytree(resolve(config.acoustic.model), folder, ignore=shutil.ignore_patterns("*.kenlm"))
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return config.model_copy(update={"acoustic": config.acoustic.model_copy(update={"model": str(folder)})})


def test_a_lake_that_0_1_0_named_by_the_layout_of_files_keeps_its_name_and_an_alias(lake: Path, tmp_path: Path) -> None:
    config = lay_out_anew(configure(lake), tmp_path / "model")
    new = name(config)
    assert new.spelling != new.fingerprint
    commit(config.lake, make_version("gs://a/1", fingerprint=new.spelling))
    run = take_name(config, new)
    assert run.fingerprint == new.spelling
    assert find_new(config, run) is None
    record_request(config, run)
    assert read_fingerprints(config.lake).aliases == {new.fingerprint: new.spelling}
    usual = configure(lake)  # the files as they are usually laid out
    assert name(usual).fingerprint == new.fingerprint
    assert take_name(usual, name(usual)).fingerprint == new.spelling, "by the alias"
    assert settle(usual, run, promote=False, is_complete=True) == "production"
    assert not promote(config.lake, new.fingerprint), "an alias names what is production already"


def test_a_run_in_another_layout_continues_under_the_name_that_is_there(lake: Path, tmp_path: Path) -> None:
    first = fill(configure(lake), "gs://a/1")
    config = lay_out_anew(configure(lake), tmp_path / "model")
    assert take_name(config, name(config)).fingerprint == first.fingerprint


def test_the_first_run_is_production_a_second_fingerprint_an_experiment_until_it_is_promoted(lake: Path) -> None:
    first = fill(configure(lake), "gs://a/1")
    config = configure(lake, decoding__beam_width="9")
    second = name(config)
    record_request(config, second)
    assert settle(config, second, promote=True, is_complete=True) == "experiment", "a run that wrote no row promotes nothing"
    commit(config.lake, make_version("gs://a/1", day=2, fingerprint=second.fingerprint))
    assert settle(config, second, promote=True, is_complete=False) == "experiment", "others are still at work on the rest"
    assert show(config.lake) == {"gs://a/1": ("1", first.fingerprint)}
    assert settle(config, second, promote=True, is_complete=True) == "production"
    assert show(config.lake) == {"gs://a/1": ("1", second.fingerprint)}
    assert settle(configure(lake), first, promote=False, is_complete=True) == "earlier"
    with connect(str(lake)) as database:
        rows = database.sql("SELECT fingerprint, run_id, replaced FROM promotions WHERE place = 0").fetchall()
    assert rows == [(second.fingerprint, second.run_id, first.fingerprint)]


def test_a_lake_from_before_counts_as_it_did_and_a_first_run_of_today_changes_nothing_in_it(lake: Path) -> None:
    config = configure(lake)
    commit(config.lake, make_version("gs://a/1", fingerprint=A), make_version("gs://a/2", fingerprint="bbbbbbbbbbbb"))
    before = show(config.lake)
    provenance = name(config)
    record_request(config, provenance)
    commit(config.lake, make_version("gs://a/1", day=3, fingerprint=provenance.fingerprint))
    assert settle(config, provenance, promote=False, is_complete=True) == "experiment"
    assert show(config.lake) == before
    assert FingerprintLog(config.lake).read().promoted == ((A, "bbbbbbbbbbbb"),)


def test_parts_are_recorded_once_and_say_everything_that_was_hashed(lake: Path) -> None:
    config = configure(lake)
    provenance = fill(config, "gs://a/1")
    record_request(config, replace(provenance, run_id="later"))
    records = [one for one in read_fingerprints(config.lake).records if one.event == "described"]
    assert [one.run_id for one in records] == [provenance.run_id]
    parts = read_fingerprints(config.lake).read_parts(provenance.fingerprint)
    assert parts == json.loads(json.dumps(provenance.parts))
    assert parts is not None
    assert set(parts["decoding"]) >= {"kind", "beam_width", "lm_sha256"}


def test_a_run_that_cannot_find_out_what_was_replaced_is_finished_all_the_same(
    lake: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure(lake)
    provenance = fill(config, "gs://a/1")

    def fail(_: Any, **options: Any) -> int:
        raise RunError("cannot find out what was replaced in the lake")

    monkeypatch.setattr(superseded, "refresh_superseded", fail)
    logging.getLogger("dictalake").addHandler(caplog.handler)
    try:
        assert settle(config, provenance, promote=False, is_complete=True) == "production"
    finally:
        logging.getLogger("dictalake").removeHandler(caplog.handler)
    assert "readers find it out themselves" in caplog.text
    assert show(config.lake) == {"gs://a/1": ("1", provenance.fingerprint)}
