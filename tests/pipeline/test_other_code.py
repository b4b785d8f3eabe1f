"""A run that is started beside a folder called ``dictalake``: Ray puts that folder first on its workers' path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from dictalake.config.locations import PACKAGE
from dictalake.workflow.package_hash import hash_package
from tests.commands import own_ray_folder
from tests.recordings import make_sound, write_wav


def test_workers_that_import_another_dictalake_write_nothing_and_both_are_named(random_lasr: Path, tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    other = shutil.copytree(PACKAGE, beside / "dictalake", ignore=shutil.ignore_patterns("assets", "__pycache__"))
    with (other / "workflow/columns.py").open("a", encoding="utf-8") as file:
        file.write("# another line\n")
    write_wav(beside / "archive/a.wav", make_sound(1, 1))
    keys = {
        "archive.uri": "archive",
        "lake.uri": "lake",
        "acoustic.model": str(random_lasr),
        "acoustic.device": "cpu",
        "acoustic.dtype": "float32",
        "decoding.kind": "greedy",
        "ray.cpus": "2",
    }
    options = [part for key, value in keys.items() for part in (f"--{key}", value)]
    with own_ray_folder() as ray_folder:
        done = subprocess.run(
            # -P: as the installed command does, the driver does not look into the working directory.
            [sys.executable, "-P", "-m", "dictalake", "backfill", *options],
            cwd=beside,
            env={**os.environ, "RAY_TMPDIR": str(ray_folder), "PYTHONPATH": str(PACKAGE.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2, done.stderr
    assert "a worker runs other code than the driver" in done.stderr
    for folder in (PACKAGE, other):
        assert str(folder) in done.stderr
        assert hash_package(folder) in done.stderr
    assert not list((beside / "lake/transcripts").glob("**/*.parquet"))
