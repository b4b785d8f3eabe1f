"""``dictalake transcribe``: the files that a person names, the default lake, and the output."""

from __future__ import annotations

import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from dictalake.archive.manifest import find_recordings
from dictalake.cli.main import make_command_parser, run_command
from dictalake.cli.own_recordings import choose_lake, find_common_folder, find_place
from dictalake.cli.transcribe import _SMALL_MODEL as SMALL
from dictalake.cli.transcribe import Outcome, make_archive, name_as_given, show_next, show_outcomes
from dictalake.config.sections import Archive, Config, Lake
from dictalake.errors import ConfigError, RunError
from dictalake.lake.claims import Heartbeat
from dictalake.lake.runs import RunLog
from dictalake.workflow.planning import Planning
from dictalake.workflow.run import _Run
from dictalake.workflow.summary import Standing, start_record
from tests.recordings import make_sound, write_wav
from tests.unit.cli.test_operators_commands import NOTHING


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with recordings in ``recs`` and one beside it."""
    for name in ("recs/a.wav", "recs/deep/b.wav", "one.wav"):
        write_wav(tmp_path / name, make_sound(0.5, seed=1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_lake_is_in_the_current_folder(here: Path) -> None:
    assert choose_lake(None, [find_place("recs"), find_place("one.wav")]) == "./dictalake-lake"


def test_the_lake_is_beside_a_folder_that_holds_the_current_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here / "recs")
    assert choose_lake(None, [find_place(".")]) == "../dictalake-lake"
    monkeypatch.chdir(here / "recs/deep")
    assert choose_lake(None, [find_place("..")]) == "../../dictalake-lake"


@pytest.mark.parametrize("lake", ["recs/lake", "recs", "./recs/deep/../lake"])
def test_a_lake_among_the_recordings_is_refused(here: Path, lake: str) -> None:
    with pytest.raises(ConfigError, match=r"is inside .*recs, which is transcribed"):
        choose_lake(lake, [find_place("./recs/")])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["recs", "nowhere.wav"], "nowhere.wav: there is no such file or folder"),
        (["empty"], "empty: the folder holds no files"),
        ([], "name a file or folder with recordings"),
        (["recs", "--archive.uri", "x"], "--archive.uri: the recordings are those of PATH"),
        (["recs", "--lake", "recs/lake"], "the lake recs/lake is inside"),
        (["recs", "--lake", "one.wav"], "lake.uri = one.wav: this is a file, and a lake is a folder"),
        (["recs", "--decoding.beam_width", "many"], "decoding.beam_width = 'many' from the command line"),
    ],
)
def test_a_bad_path_or_key_is_named_before_anything_starts(here: Path, arguments: list[str], line: str) -> None:
    (here / "empty").mkdir()
    with pytest.raises(ConfigError, match=f"^{re.escape(line)}"):
        run_command("transcribe", arguments)
    assert not (here / "dictalake-lake").exists()


@pytest.mark.parametrize(
    ("paths", "names"),
    [(["recs"], ["a.wav", "b.wav"]), (["one.wav", "recs/deep"], ["one.wav", "b.wav"]), (["one.wav"], ["one.wav"])],
)
def test_files_and_folders_become_recordings_with_the_same_ids(
    here: Path, tmp_path_factory: pytest.TempPathFactory, paths: list[str], names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("manifest")
    archive = make_archive(Archive.model_validate({}), [find_place(path) for path in paths], folder)
    found = {recording.uri.rpartition("/")[2]: recording.recording_id for recording in find_recordings(archive)}
    assert list(found) == names
    listed = Archive.model_validate({"uri": str(here)})
    assert set(found.values()) <= {recording.recording_id for recording in find_recordings(listed)}


@pytest.mark.parametrize(
    ("paths", "folder"),
    [
        (["recs"], "recs"),
        (["recs/deep/b.wav"], "recs/deep"),
        (["recs/a.wav", "recs/deep"], "recs"),
        (["one.wav", "recs/deep/b.wav"], ""),
        (["s3://hospital/may/1.wav", "s3://hospital/may/2.wav"], "s3://hospital/may"),
        (["s3://hospital/may/", "s3://hospital/may-2"], "s3://hospital"),
        (["s3://hospital/may", "s3://clinic/may"], None),
        (["s3://hospital/may", "recs"], None),
        (["embedded:demo-archive", "recs"], None),
    ],
)
def test_a_run_records_the_folder_that_holds_all_the_paths(here: Path, paths: list[str], folder: str | None) -> None:
    found = find_common_folder([find_place(path) for path in paths])
    assert found == (folder if folder is None or "://" in folder else str(here / folder))


def test_a_run_over_several_paths_records_nothing_that_is_gone_after_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def record_start(run: _Run, work: Planning, places: pa.Table, heartbeat: Heartbeat) -> None:
        run.log.append(start_record(run.config, run.provenance, run.job, work.counts))

    monkeypatch.setattr("dictalake.workflow.run._do_work", record_start)
    run_command("transcribe", ["one.wav", "recs/deep", "--lake", "lake"])
    started = RunLog(Lake.model_validate({"uri": "lake"})).read().to_pylist()[0]
    archive = json.loads(started["config"])["archive"]
    assert (started["archive_uri"], archive["uri"], archive["manifest"]) == (str(here), str(here), None)
    assert started["recordings"] == 2


@pytest.mark.usefixtures("here")
def test_a_bucket_that_was_emptied_since_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A local folder without files is refused by name, a bucket is listed first; the command has no --allow-empty."""

    def see(*_: object, allow_empty: bool = False, **__: object) -> None:
        raise RunError(f"allow_empty={allow_empty}")

    monkeypatch.setattr("dictalake.cli.transcribe.transcribe", see)
    with pytest.raises(RunError, match="allow_empty=True"):
        run_command("transcribe", ["recs", "--lake", "lake"])


@pytest.mark.parametrize("name", ["end .wav ", " begin.wav", "two\nlines.wav", 'a,b"c.wav', "#1.wav\u00a0", "blank.wav\u200b"])
def test_names_reach_the_run_as_they_are(here: Path, tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    for path in (here / name, here / "recs" / name):
        shutil.copy(here / "one.wav", path)
    places = [find_place(name), find_place("recs")]
    archive = make_archive(Archive.model_validate({}), places, tmp_path_factory.mktemp("manifest"))
    found = {recording.uri: recording.recording_id for recording in find_recordings(archive)}
    assert {f"file://{here}/{name}", f"file://{here}/recs/{name}"} <= found.keys()
    listed = Archive.model_validate({"uri": str(here)})
    assert set(found.values()) <= {recording.recording_id for recording in find_recordings(listed)}
    assert [name_as_given(uri, places) for uri in found if uri.endswith(name)] == [name, f"recs/{name}"]


def test_folders_without_a_file_that_is_wanted_are_an_archive_without_recordings(here: Path) -> None:
    wanted = Archive.model_validate({"include": ["*.flac"]})
    assert list(find_recordings(make_archive(wanted, [find_place("recs"), find_place("recs/deep")], here))) == []


@pytest.mark.parametrize("paths", [["\udcff.wav"], ["one.wav", "bad"], ["bad\udcff"]])
def test_a_name_that_is_not_utf_8_is_refused_in_words_that_can_be_printed(here: Path, paths: list[str]) -> None:
    for name in ("\udcff.wav", "bad/\udcff.wav", "bad\udcff/a.wav"):
        (here / name).parent.mkdir(exist_ok=True)
        shutil.copy(here / "one.wav", here / name)
    with pytest.raises(ConfigError, match=r"\\udcff(\.wav)?: its name is not UTF-8") as caught:
        make_archive(Archive.model_validate({}), [find_place(path) for path in paths], here)
    str(caught.value).encode()


def test_files_of_the_embedded_archive_are_named_as_it_is() -> None:
    place = find_place("embedded:demo-archive")
    recording = next(find_recordings(Archive.model_validate({"uri": place.location})))
    assert name_as_given(recording.uri, [place]).startswith("embedded:demo-archive/")


def test_the_person_sees_texts_failures_and_what_to_do_next(here: Path) -> None:
    places = [find_place("./recs"), find_place("one.wav")]
    outcomes = [Outcome(f"file://{here}/recs/{name}.wav", "No acute fracture. " * 8, None, None) for name in "abcd"]
    outcomes.append(Outcome(f"file://{here}/one.wav", None, "not_audio", "this is text, whatever its name says"))
    output = io.StringIO()
    console = Console(file=output, width=80)
    config = Config.model_validate({"lake": {"uri": "./my lake"}})
    show_outcomes(outcomes, places, console)
    show_next(config, make_command_parser("transcribe").parse(["./recs", "one.wav"]), console)
    shown = output.getvalue()
    assert [line for line in shown.splitlines() if line.endswith(".wav")] == [
        "./recs/a.wav",
        "./recs/b.wav",
        "./recs/c.wav",
        "  one.wav",
    ]
    assert "These are 3 of 4 transcripts." in shown
    assert "not_audio: this is text" in shown
    assert "dictalake query './my lake' \"SELECT text, confidence FROM transcripts\"" in shown
    assert "dictalake transcribe ./recs one.wav --lake './my lake' --config medasr" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_model_that_does_not_show_yet_is_promoted_first() -> None:
    promote = "dictalake promote ./l f1"
    assert show_hints(standing="experiment")[0] == promote
    assert promote not in show_hints(standing="production")


def show_hints(*arguments: str, standing: Standing = "production") -> list[str]:
    output = io.StringIO()
    parsed = make_command_parser("transcribe").parse(["./recs", *arguments])
    overrides = dict(parsed.overrides)
    config = Config.model_validate({"lake": {"uri": "./l"}, "acoustic": {"model": overrides.get("acoustic.model", SMALL)}})
    show_next(config, parsed, Console(file=output, width=80), replace(NOTHING, standing=standing))
    return [line.strip() for line in output.getvalue().splitlines() if line.startswith("  ")]


def test_the_next_commands_keep_what_was_given() -> None:
    keys = ["--config", "my own.yaml", "--lake.storage_options", "{key: hunter2}", "--ray.cpus", "3"]
    query = "dictalake query ./l \"SELECT text, confidence FROM transcripts\" --config 'my own.yaml' --lake.storage_options …"
    better = "--acoustic.model google/medasr --decoding.lm model:lm_6.kenlm"
    kept = "--config 'my own.yaml' --lake.storage_options … --ray.cpus 3"
    assert show_hints(*keys) == [query, f"dictalake transcribe ./recs --lake ./l {kept} {better}"]
    report = "dictalake report ./l --out report.html --config 'my own.yaml' --lake.storage_options …"
    assert show_hints(*keys, "--acoustic.model", "m") == [query, report]
    assert show_hints("--ray.cpus", "3")[1] == "dictalake transcribe ./recs --lake ./l --config medasr --ray.cpus 3"
