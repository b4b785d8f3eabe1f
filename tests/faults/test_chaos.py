"""A short, seeded part of `make chaos` (test_kill_and_resume.py kills drivers).

That its reader and its verdict can fail is in unit/test_chaos_checks.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.commands import ROOT

KILLS, RECORDINGS = 2, 60
LONGEST_S = 560.0


def test_runs_killed_at_random_moments_lose_and_duplicate_nothing_and_readers_see_only_whole_rows(tmp_path: Path) -> None:
    options = {"seed": "2", "kills": str(KILLS), "store": "local", "recordings": str(RECORDINGS)}
    options |= {"kinds": "worker,actor", "out": str(tmp_path / "chaos.json")}
    command = [sys.executable, "-m", "tests.chaos", *(f"--{name}={value}" for name, value in options.items())]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    assert process.returncode == 0, process.stdout + process.stderr

    figures = json.loads((tmp_path / "chaos.json").read_text())["stores"]["local"]
    assert figures["kills"] == KILLS
    assert min(figures[f"{kind} kills"] for kind in ("worker", "actor")) >= 1
    assert figures["recordings there"] == figures["recordings expected"] == figures["cycles"] * RECORDINGS
    assert (figures["lost"], figures["duplicated"], figures["wrong"]) == (0, 0, 0)
    assert figures["reader: reads with more rows than before"] > 3 * figures["cycles"]
    assert figures["reader: violations"] == 0
