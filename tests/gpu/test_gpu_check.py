"""The check of a GPU runs on a CPU, on a machine that has little but torch and transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import tests

# Packages of a run that the machine with the GPU has not.
MISSING = ["ray", "deltalake", "duckdb", "soundfile", "av", "soxr", "pydicom", "kenlm", "pyctcdecode", "numba", "webrtcvad"]
MISSING += ["platformdirs", "rich", "librosa"]
CODE = f"""
import sys
sys.modules.update(dict.fromkeys({MISSING}))
from tests.gpu.gpu_check import main
sys.exit(main(sys.argv[1:]))
"""


def test_every_part_ends_and_is_kept_without_the_packages_of_a_run(tmp_path: Path) -> None:
    from tests.gpu.gpu_check import PARTS  # imports all of transformers' models

    ended = subprocess.run(
        [sys.executable, "-c", CODE, "--out", str(tmp_path), "--device", "cpu", "--small"],
        cwd=Path(tests.__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((tmp_path / "gpu_check.json").read_text())
    assert found.keys() == {*PARTS, "took_s"}
    for name, value in found["correctness"].items():
        assert value > 0.99, name
