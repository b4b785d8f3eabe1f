"""Nights in a row: arrivals, replacements, late, failing and vanishing files, and rows exactly as a model of the archive
says. The job is the real one (``dictalake nightly`` through real Ray, real loading and the real lake); only what hears and
decodes is a stub, and one Ray is kept for all nights.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from dictalake.cli.main import run_command
from dictalake.lake.query import connect
from dictalake.workflow.plan import Resources
from tests.recordings import make_sound, write_wav

NIGHTS = int(os.environ.get("NIGHTS", "4"))  # each takes six seconds
NAMES = [f"{letter}.wav" for letter in "abcdefgh"]
names = st.sampled_from(NAMES)
days = st.integers(0, 4000)  # since 2015: late ones, and ones from a clock that goes wrong
model_path: list[Path] = []


class Nights(RuleBasedStateMachine):
    """``expected`` is what the lake should hold: (name, version) → the status of each attempt."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="nights-"))
        self.archive, self.sick = self.folder / "archive", self.folder / "sick"
        self.archive.mkdir()
        self.sick.write_text("")
        self.sick_names: set[str] = set()
        self.kinds: dict[str, str] = {}
        self.expected: dict[tuple[str, str], list[str]] = {}
        self.nights = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @initialize()
    def first_files(self) -> None:
        for name in NAMES[:3]:
            self.put(name, "good", 3650)

    @rule(name=names, kind=st.sampled_from(["good", "good", "text", "empty"]), day=days)
    def arrives_or_is_replaced(self, name: str, kind: str, day: int) -> None:
        self.put(name, kind, day)

    @rule(name=names)
    def vanishes(self, name: str) -> None:
        (self.archive / name).unlink(missing_ok=True)
        self.kinds.pop(name, None)

    @rule(name=names)
    def falls_sick_or_heals(self, name: str) -> None:
        self.sick_names ^= {name}
        self.sick.write_text(" ".join(self.sick_names))

    @precondition(lambda self: self.nights < NIGHTS)
    @rule(retry=st.sampled_from([None, "", "not_audio"]))
    def night(self, retry: str | None) -> None:
        self.nights += 1
        failed = self.predict(retry)
        options = ["--archive.uri", str(self.archive), "--lake.uri", str(self.folder / "lake"), "--lake.lease_s", "5"]
        options += [
            "--report.write",
            "false",
            "--acoustic.model",
            str(model_path[0]),
            "--acoustic.device",
            "cpu",
            "--decoding.kind",
            "greedy",
        ]
        options += [f"--archive.storage_options={{sick: {self.sick}}}"]
        options += [] if retry is None else ["--retry-failed", *([retry] if retry else [])]
        assert run_command("nightly", options) == (3 if failed else 0)
        self.check()

    def put(self, name: str, kind: str, day: int) -> None:
        path = self.archive / name
        content = {"text": b"not a sound at all", "empty": b""}.get(kind)
        if content is None:
            write_wav(path, make_sound(0.3, seed=len(self.expected)))
        else:
            path.write_bytes(content)
        moment = 1_420_070_400 + day * 86_400 + len(self.expected) + self.nights / 64  # seldom the same again
        os.utime(path, (moment, moment))
        self.kinds[name] = kind

    def predict(self, retry: str | None) -> int:
        """What a night should add to ``expected``; how many recordings should fail in it."""
        failed = 0
        for name, kind in self.kinds.items():
            status = os.stat(self.archive / name)
            attempts = self.expected.setdefault((name, f"{status.st_mtime_ns}-{status.st_size}"), [])
            heard = "model_failed" if name in self.sick_names else "ok"
            outcome = {"text": "not_audio", "empty": "empty_object"}.get(kind, heard)
            again = bool(attempts) and attempts[-1] == {None: "", "": "model_failed", "not_audio": "not_audio"}[retry]
            if not attempts or again:
                attempts.append(outcome)
                failed += outcome != "ok"
        return failed

    def check(self) -> None:
        database = connect(str(self.folder / "lake"))
        query = "SELECT source.uri, source.version, attempt, coalesce(error.reason, status) FROM history ORDER BY attempt"
        found: dict[tuple[str, str], list[str]] = {}
        for uri, version, attempt, outcome in database.execute(query).fetchall():
            attempts = found.setdefault((Path(uri).name, version), [])
            assert attempt == len(attempts)
            attempts.append(outcome)
        assert found == {key: attempts for key, attempts in self.expected.items() if attempts}
        good = {key for key, attempts in found.items() if attempts[-1] == "ok"}
        shown = database.execute("SELECT source.uri, source.version FROM transcripts").fetchall()
        newest = {name: version for (name, version), attempts in self.expected.items() if attempts}  # in order of their nights
        assert sorted((Path(uri).name, version) for uri, version in shown) == sorted(good & set(newest.items()))
        failures = database.execute("SELECT source.uri, source.version FROM failures").fetchall()
        assert sorted((Path(uri).name, version) for uri, version in failures) == sorted(set(found) - good)


def test_any_nights_leave_what_a_model_of_the_archive_predicts(
    stub_stages: None, two_cpus: Resources, random_lasr: Path
) -> None:
    model_path[:] = [random_lasr]
    seen: list[int] = []

    class Counted(Nights):
        def teardown(self) -> None:
            while self.nights < NIGHTS:  # the steps that were drawn may hold fewer
                self.arrives_or_is_replaced(NAMES[self.nights % len(NAMES)], "good", self.nights * 7)
                self.night(None if self.nights % 2 else "")
            seen.append(self.nights)
            super().teardown()

    examples = int(os.environ.get("NIGHTS_EXAMPLES", "1"))
    wanted = settings(
        max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    run_state_machine_as_test(Counted, settings=wanted)
    assert seen
    assert set(seen) == {NIGHTS}
