"""Headerless files that were read with a wrong rate are found and made again; their fingerprint stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dictalake.config.load import load_config
from dictalake.config.sections import Config
from dictalake.errors import ConfigError
from dictalake.records import Recording
from dictalake.workflow.misread import find_again, find_misread
from dictalake.workflow.worklist import Retry, WorkList
from tests.truth_lake import A, B, commit, make_lake, make_version


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    made = make_lake(tmp_path)
    vox = {"container": "vox", "codec": "adpcm_ima_oki", "sample_rate_hz": 8000, "channels": 1}

    def read_as(name: str, source: dict[str, Any], **changes: Any) -> dict[str, Any]:
        row = make_version(f"gs://a/{name}", recording_id=name, **changes)
        return {**row, "source": {**row["source"], **source}}

    commit(
        made,
        read_as("1.vox", vox),
        read_as("2.VOX", vox),
        read_as("2.VOX", {**vox, "sample_rate_hz": 6000}, attempt=1),
        read_as("3.dat", {"container": "headerless", "codec": "pcm_mulaw", "sample_rate_hz": 8000, "channels": 1}),
        read_as("4.vox", {"container": "wav", "codec": "pcm_s16le", "sample_rate_hz": 44100, "channels": 2}),
        read_as("5.vox", vox, fingerprint=B),
    )
    return Path(str(made.uri))


def configure(lake: Path, **keys: str) -> Config:
    return load_config(
        "demo", [("lake.uri", str(lake)), *((f"archive.{key}", value) for key, value in keys.items())], environment={}
    )


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({}, []),
        ({"vox_rate_hz": "8000"}, ["2.VOX"]),
        ({"vox_rate_hz": "6000"}, ["1.vox"]),
        ({"vox_rate_hz": "11025"}, ["1.vox", "2.VOX"]),
        ({"headerless": "{dat: {codec: a_law, rate_hz: 8000}}"}, ["3.dat"]),
        ({"headerless": "{dat: {codec: mu_law, rate_hz: 8000}}"}, []),
        ({"headerless": "{dat: {codec: mu_law, rate_hz: 8000, channels: 2}}"}, ["3.dat"]),
    ],
)
def test_rows_that_were_read_otherwise_than_the_configuration_says_now_are_found(
    lake: Path, keys: dict[str, str], found: list[str]
) -> None:
    assert sorted(find_misread(configure(lake, **keys), A)["recording_id"].to_pylist()) == found


def test_they_are_the_next_attempts_of_a_run_that_is_asked_for_them(lake: Path, tmp_path: Path) -> None:
    import pyarrow.dataset as ds

    from dictalake.lake.table import TranscriptTable
    from dictalake.lake.tombstones import ErasedSubjects
    from dictalake.workflow.worklist import CLAIMED

    config = configure(lake, vox_rate_hz="11025")
    listed = [Recording(name, f"gs://a/{name}", "1", 10) for name in ("1.vox", "2.VOX", "3.dat", "4.vox")]
    (tmp_path / "work").mkdir()
    work = WorkList(listed, ErasedSubjects(), config, tmp_path / "work")

    def find(retry: Retry | None) -> dict[str, int]:
        table = TranscriptTable(config.lake)
        again = find_again(config, A, retry)
        work.refresh(lambda: table.committed(A), lambda: ds.dataset(CLAIMED.empty_table()), retry, lost=again)
        return {recording.recording_id: recording.attempt for block in work.blocks() for recording in block}

    assert find(None) == {}
    assert find(Retry(failed=False, misread=True)) == {"1.vox": 1, "2.VOX": 2}
    assert find(Retry(failed=False, lost=True)) == {}


def test_the_option_is_understood(tmp_path: Path) -> None:
    from dictalake.cli.commands import backfill
    from dictalake.cli.options import CommandParser
    from dictalake.cli.run_options import read_retry

    parser = CommandParser("dictalake backfill")
    backfill.add_arguments(parser)
    assert read_retry(parser.parse(["a", "l", "--retry", "headerless"])) == Retry(failed=False, misread=True)
    assert read_retry(parser.parse(["a", "l", "--retry", "lost"])) == Retry(failed=False, lost=True)
    assert read_retry(parser.parse(["a", "l"])) is None
    with pytest.raises(ConfigError):
        parser.parse(["a", "l", "--retry", "vox"])
