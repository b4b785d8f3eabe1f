"""How a run ends before it has any work, without Ray: stopped, with an archive that has vanished, or refused."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from dictalake import stops
from dictalake.archive.findings import Findings
from dictalake.archive.manifest import scan_recordings
from dictalake.cli.main import main
from dictalake.config.load import load_config
from dictalake.config.sections import Config
from dictalake.errors import ArchiveEmpty, ConfigError, RunError
from dictalake.lake.claims import LeaseStore
from dictalake.lake.runs import RunLog
from dictalake.workflow import run
from dictalake.workflow.archive_checks import begin_findings, check_listing
from tests.truth_lake import commit, make_version


@pytest.fixture
def config(random_lasr: Path, tmp_path: Path) -> Config:
    """A lake that knows one recording of the archive, which is an empty folder."""
    (tmp_path / "archive").mkdir()
    keys = {"archive.uri": str(tmp_path / "archive"), "lake.uri": str(tmp_path / "lake"), "acoustic.model": str(random_lasr)}
    keys |= {"acoustic.device": "cpu", "decoding.kind": "greedy"}
    config = load_config(None, list(keys.items()), environment={})
    commit(config.lake, make_version(f"file://{tmp_path}/archive/1.wav"))
    return config


def end_of(config: Config) -> str:
    """How the last run says that it ended. It has given its lease back."""
    assert LeaseStore(config.lake).read() == []
    start, end = RunLog(config.lake).read().to_pylist()
    assert start["event"] == "started"
    [lineage] = Path(str(config.lake.uri)).glob("lineage/*.abort.json")
    assert json.loads(lineage.read_text())["eventType"] == "ABORT"
    return str(end["event"])


@pytest.mark.parametrize(("number", "stop"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_run_that_is_stopped_inside_of_duckdb_is_a_stopped_one(
    number: int, stop: type[BaseException], config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_stopped(*_: Any, **__: Any) -> None:
        try:
            stops.handle(number, None)
        except BaseException:
            raise RuntimeError("Query interrupted") from None

    monkeypatch.setattr(run, "WorkList", be_stopped)
    try:
        with pytest.raises(stop):
            run.transcribe(config)
    finally:
        stops.forget()
    assert end_of(config) == "stopped"


def test_a_listing_that_is_empty_where_the_lake_knows_recordings_fails_the_run(config: Config) -> None:
    with pytest.raises(ArchiveEmpty, match=r"^archive_empty: "):
        run.transcribe(config)
    [start, end] = RunLog(config.lake).read().to_pylist()
    assert (start["event"], end["event"]) == ("started", "failed")
    assert run.transcribe(config, allow_empty=True).found == 0


def test_the_look_at_what_the_lake_knows_can_be_stopped(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def be_asked() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stops, "check", be_asked)
    with pytest.raises(KeyboardInterrupt):
        check_listing(config, config.archive, Findings(), allow_empty=False)


def test_a_night_without_its_archive_is_an_error_of_one_line(config: Config, capfd: pytest.CaptureFixture[str]) -> None:
    keys = [
        str(config.archive.uri),
        str(config.lake.uri),
        "--acoustic.model",
        config.acoustic.model,
        "--decoding.kind",
        "greedy",
    ]
    keys += ["--acoustic.device", "cpu", "--new-fingerprint"]
    assert main(["nightly", *keys]) == 1
    out, err = capfd.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith("dictalake nightly: archive_empty: ")
    assert main(["nightly", *keys, "--allow-empty"]) == 0


@pytest.mark.parametrize("elsewhere", ["archive-2/1.wav", "other/archive/1.wav"])
def test_an_archive_that_was_always_empty_is_no_error(elsewhere: str, config: Config, tmp_path: Path) -> None:
    lake = config.lake.model_copy(update={"uri": str(tmp_path / "lake-2")})
    commit(lake, make_version(f"file://{tmp_path}/{elsewhere}"))
    assert run.transcribe(config.model_copy(update={"lake": lake})).found == 0


@pytest.mark.parametrize("keys", [{"include": ("*.mp3",)}, {"since": "2100-01-01T00:00:00Z"}])
def test_an_archive_of_which_nothing_is_asked_for_is_not_empty(keys: dict[str, Any], config: Config) -> None:
    (Path(str(config.archive.uri)) / "2.wav").write_bytes(b"RIFF")
    archive = type(config.archive).model_validate(config.archive.model_dump() | keys)
    assert run.transcribe(config.model_copy(update={"archive": archive})).found == 0


@pytest.mark.parametrize(
    ("archive", "lake"),
    [
        ("/a", "/a"),
        ("/a/my lake", "file:///a/my%20lake"),
        ("/a/lake/reports", "/a/lake"),
        ("s3a://b/x", "s3://b/x/"),
        ("gs://b/x/runs/y", "gs://b/x"),
    ],
)
def test_a_lake_that_cannot_be_told_from_the_archive_is_refused(archive: str, lake: str) -> None:
    config = Config.model_validate({"archive": {"uri": archive}, "lake": {"uri": lake}})
    with pytest.raises(ConfigError, match=r"^lake\.uri = .*a folder of its own$"):
        begin_findings(config, config.archive)


@pytest.mark.parametrize(("archive", "lake"), [("/a/lake/sounds", "/a/lake"), ("/a", "/a-lake"), ("gs://b/x", "s3://b/x")])
def test_a_lake_beside_the_archive_or_around_it_is_none_of_its_business(archive: str, lake: str) -> None:
    config = Config.model_validate({"archive": {"uri": archive}, "lake": {"uri": lake}})
    assert begin_findings(config, config.archive).lake_folders == ()


def test_a_lake_inside_the_archive_is_left_out_however_its_place_is_spelled(tmp_path: Path) -> None:
    for name in ("a.wav", "my lake/runs/1.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"RIFF")
    config = Config.model_validate({"archive": {"uri": str(tmp_path)}, "lake": {"uri": f"file://{tmp_path}/my%20lake"}})
    findings = begin_findings(config, config.archive)
    assert [one.uri for one in scan_recordings(config.archive, findings)] == [f"file://{tmp_path}/a.wav"]
    assert findings.holds_lake


@pytest.mark.parametrize("place", [{"uri": "gs://b"}, {"allowed": ("gs://b",)}], ids=["archive.uri", "archive.allowed"])
def test_a_lake_in_the_bucket_of_an_inventory_is_left_out(place: dict[str, Any], tmp_path: Path) -> None:
    rows = [f"b,{name},1,2026-01-01T00:00:00Z,,1\n" for name in ("a.wav", "lake/runs/1.parquet")]
    (tmp_path / "inventory").write_text("bucket,name,size,updated,timeDeleted,generation\n" + "".join(rows))
    archive = {"inventory": str(tmp_path / "inventory"), "storage_options": {"token": "anon"}, **place}
    config = Config.model_validate({"archive": archive, "lake": {"uri": "gs://b/lake"}})
    findings = begin_findings(config, config.archive)
    assert [one.uri for one in scan_recordings(config.archive, findings)] == ["gs://b/a.wav"]
    assert findings.holds_lake


def test_what_came_is_taken_in_before_a_run_without_a_lease_ends() -> None:
    class Lost:
        beats = 0

        def check(self) -> None:
            self.beats += 1
            if self.beats == 2:
                raise RunError("the lease is lost")

    taken: list[int] = []
    with pytest.raises(RunError, match="lost"):
        taken.extend(run._while_alive([1, 2, 3], Lost()))  # type: ignore[arg-type]
    assert taken == [1, 2]
