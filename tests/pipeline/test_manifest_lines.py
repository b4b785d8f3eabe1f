"""A manifest from a spreadsheet with three good lines and three bad ones, through whole runs: six rows, and never more."""

from __future__ import annotations

from pathlib import Path

import pytest

from dictalake.cli.main import run_command
from dictalake.errors import BadManifestLine
from dictalake.lake.erase import Subjects, forget
from dictalake.workflow.cluster import Resources
from dictalake.workflow.run import transcribe
from dictalake.workflow.worklist import Retry
from tests.recordings import make_config, make_sound, read_rows, write_wav

CANARY = "Zyxwandelina"
LINES = [
    "\ufeffURI;Note;",
    "a.wav;one;",
    f'x.wav;"{CANARY} with a quote;',
    'b.wav;"two; and a half";',
    f";{CANARY} without a uri;",
    f"y.wav;{CANARY};one;field;too many",
    "c.wav;three;",
    ";;",
]
DETAILS = {
    "line 3 of the manifest has a quote that is not closed, or not doubled inside of a quoted field",
    "line 5 of the manifest has no uri",
    "line 6 of the manifest has 5 fields, the first line names 3; put fields with a separator in quotes",
}


def test_bad_lines_of_a_manifest_are_rows_once_and_the_rest_goes_through(
    stub_stages: None, two_cpus: Resources, random_lasr: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate("abc"):
        write_wav(tmp_path / f"archive/{name}.wav", make_sound(1.0, seed))
    manifest, lake = tmp_path / "archive/list.csv", tmp_path / "lake"
    manifest.write_bytes("\r\n".join(LINES).encode())
    config = make_config(random_lasr, lake, archive={"manifest": str(manifest)})

    first = transcribe(config)
    assert (first.found, first.ok, first.failed, first.failures) == (6, 3, 3, {"bad_manifest_line (load)": 3})
    rows = read_rows(lake)
    assert [(row["source"]["uri"].rsplit("/")[-1], dict(row["metadata"])) for row in rows if row["status"] == "ok"] == [
        ("a.wav", {"Note": "one"}),
        ("b.wav", {"Note": "two; and a half"}),
        ("c.wav", {"Note": "three"}),
    ]
    failed = [row for row in rows if row["status"] == "failed"]
    assert {row["error"]["detail"] for row in failed} == DETAILS
    assert {(row["error"]["stage"], row["error"]["retryable"]) for row in failed} == {("load", False)}
    assert CANARY not in str(failed)

    # Again, every night, and after a retry of what may pass: nothing new.
    for retry in (None, Retry()):
        again = transcribe(config, retry=retry)
        assert (again.skipped, again.skipped_failed, again.ok, again.failed) == (6, 3, 0, 0)
    night = ["--archive.manifest", str(manifest), "--lake.uri", str(lake), "--acoustic.model", str(random_lasr)]
    night += ["--acoustic.device", "cpu", "--acoustic.dtype", "float32", "--decoding.kind", "greedy"]
    night += ["--report.write", "false"]
    assert run_command("nightly", night) == 0
    assert len(read_rows(lake)) == 6
    retried = transcribe(config, retry=Retry((BadManifestLine.reason,)))
    assert (retried.retried, retried.failed) == (3, 3)
    assert sorted(row["attempt"] for row in read_rows(lake)) == [0, 0, 0, 0, 0, 0, 1, 1, 1]

    # An erased line stays out; a corrected one is a new recording, and one that is bad in another way is a new row.
    forget(config.lake, Subjects(recordings=(failed[0]["recording_id"],)))
    lines = [*LINES[:4], "a.wav;again;", "y.wav;one;field;too;many", *LINES[6:], "gone.wav;four;"]
    manifest.write_bytes("\r\n".join(lines).encode())
    assert run_command("nightly", night) == 3
    reasons = [row["error"]["reason"] for row in read_rows(lake) if row["status"] == "failed"]
    assert sorted(reasons) == [*["bad_manifest_line"] * 5, "not_found"]
    assert transcribe(config).erased == 1
    out, err = capfd.readouterr()
    assert CANARY not in out + err
