"""What counts in a lake that real runs write: a first model, an experiment, a promotion, and a file that is replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dictalake.cli.main import main, run_command
from dictalake.lake.query import connect
from dictalake.workflow.plan import Resources
from tests.recordings import make_sound, write_wav


def test_a_lake_shows_the_first_model_until_another_is_promoted(
    stub_stages: None, two_cpus: Resources, random_lasr: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    archive, lake = tmp_path / "archive", tmp_path / "lake"
    for number in range(3):
        write_wav(archive / f"{number}.wav", make_sound(0.5, seed=number))
    keys = [
        str(archive),
        str(lake),
        "--acoustic.model",
        str(random_lasr),
        "--acoustic.device",
        "cpu",
        "--decoding.kind",
        "greedy",
        "--report.write",
        "false",
    ]
    other = [*keys, "--windows.overlap_s", "4"]

    def ask(sql: str) -> list[tuple[Any, ...]]:
        with connect(str(lake)) as database:
            return database.sql(sql).fetchall()

    assert run_command("nightly", keys) == 0
    [(first,)] = ask("SELECT DISTINCT fingerprint FROM transcripts")
    [(place, run_id)] = ask("SELECT place, run_id FROM promotions")
    assert (place, run_id) == (0, ask("SELECT run_id FROM runs")[0][0])

    # A changed setting is refused in one line, and nothing is written.
    capfd.readouterr()
    assert main(["nightly", *other]) == 2
    refused = capfd.readouterr().err.splitlines()
    assert len(refused) == 1
    assert "windows.overlap_s 2.0 → 4.0; 3 recordings are done in the lake" in refused[0]
    assert len(ask("FROM runs")) == 1

    # As an experiment over one file, it shows nowhere.
    assert run_command("backfill", [*other, "--archive.include", "0.wav"]) == 0
    assert "`dictalake promote" in capfd.readouterr().out
    assert ask("SELECT DISTINCT fingerprint FROM transcripts") == [(first,)]
    assert ask("SELECT count(*) FROM history") == [(4,)]

    # From then on it is known, and a complete backfill promotes it.
    assert run_command("backfill", [*other, "--promote"]) == 0
    [(second,)] = ask("SELECT DISTINCT fingerprint FROM transcripts")
    assert second != first
    assert ask("SELECT fingerprint, replaced FROM promotions WHERE place = 0") == [(second, first)]

    # A file that is replaced shows once, in its new version; one that is deleted stays.
    write_wav(archive / "1.wav", make_sound(0.7, seed=9))
    (archive / "2.wav").unlink()
    assert run_command("nightly", other) == 0
    shown = ask("SELECT uri, duration_s FROM recordings ORDER BY uri")
    assert [(Path(uri).name, duration_s) for uri, duration_s in shown] == [("0.wav", 0.5), ("1.wav", 0.7), ("2.wav", 0.5)]
    assert ask("SELECT count(*) FROM history WHERE NOT is_current") == [(2,)], "under both fingerprints"
    with connect(str(lake)) as database:
        [(sql,)] = database.sql("SELECT sql FROM duckdb_views() WHERE view_name = 'superseded'").fetchall()
    assert "superseded_records" in sql, "the run wrote down what was replaced"

    # Back: the new version has no row of the first model.
    assert run_command("promote", [str(lake), first]) == 0
    shown = ask("SELECT source.uri, fingerprint FROM transcripts ORDER BY 1")
    assert [(Path(uri).name, fingerprint) for uri, fingerprint in shown] == [
        ("0.wav", first),
        ("1.wav", second),
        ("2.wav", first),
    ]
