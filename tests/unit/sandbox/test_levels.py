"""What a kernel lacks is said in words, and ``sandbox.level: require`` refuses to start without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dictalake.audio.load import AudioLoader
from dictalake.config.sections import Config
from dictalake.errors import ConfigError
from dictalake.sandbox import child, levels
from dictalake.sandbox.jail import Holds, find_landlock

WHOLE = Holds(7, True, True, False)
REQUIRE = Config.model_validate({"sandbox": {"level": "require"}})
ON_OLD_KERNEL = pytest.mark.skipif(
    sys.platform != "linux" or not find_landlock(), reason="the comparison needs a kernel that has all of it"
)


def test_what_holds_is_one_short_line() -> None:
    assert levels.describe(WHOLE) == "decoders are confined by Landlock 7, seccomp, resource limits"
    assert levels.describe(Holds(seccomp=True)).startswith(
        "decoders are confined by seccomp, resource limits; missing: Landlock (Linux 5.13"
    )


def test_the_first_line_of_a_run_says_it_in_three_words() -> None:
    assert levels.describe_briefly(WHOLE) == "jail: Landlock 7, seccomp"
    assert levels.describe_briefly(Holds(seccomp=True)) == "jail: no Landlock, seccomp"
    assert levels.describe_briefly(Holds(4)) == "jail: Landlock 4, no seccomp"
    assert levels.describe_briefly(Holds()) == "jail: none, resource limits alone"


@pytest.mark.skipif(sys.platform != "linux", reason="about Linux")
@pytest.mark.parametrize(
    ("holds", "missing"), [(Holds(), ("Landlock", "seccomp")), (Holds(seccomp=True), ("Landlock",)), (Holds(1), ("seccomp",))]
)
def test_require_names_what_is_missing_and_auto_takes_what_there_is(holds: Holds, missing: tuple[str, ...]) -> None:
    levels.check_level("auto", holds)
    with pytest.raises(ConfigError, match=r"sandbox\.level = require") as caught:
        levels.check_level("require", holds)
    assert [name in str(caught.value) for name in missing] == [True] * len(missing)


def test_require_is_content_with_a_kernel_that_has_both() -> None:
    levels.check_level("require", WHOLE)


def test_on_another_system_only_limits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert levels.describe(Holds()) == (
        "decoders are confined by resource limits; missing: Landlock and seccomp, which only Linux has"
    )


def test_a_loader_that_requires_the_jail_is_not_made_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dictalake.sandbox.levels.probe", Holds)
    AudioLoader(Config())
    with pytest.raises(ConfigError, match=r"sandbox\.level"):
        AudioLoader(REQUIRE)


@ON_OLD_KERNEL
@pytest.mark.parametrize(("missing", "word"), [("landlock", "Landlock"), ("seccomp", "seccomp")])
def test_a_run_that_requires_the_jail_refuses_to_start_on_a_kernel_without_it(tmp_path: Path, missing: str, word: str) -> None:
    command = [sys.executable, "-m", "tests.attacks.old_kernel", missing, "dictalake", "backfill"]
    options = ["--sandbox.level=require", "--archive.uri=embedded:demo-archive", f"--lake.uri={tmp_path / 'lake'}"]
    ended = subprocess.run(
        [*command, *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in [*sys.path, os.getcwd()] if path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (ended.returncode, word in ended.stdout) == (2, True), ended.stdout
    assert not (tmp_path / "lake").exists()


@ON_OLD_KERNEL
def test_a_child_that_cannot_be_confined_ends_a_call_that_requires_it() -> None:
    """A worker's machine may lack what the driver's has."""
    script = (
        "from dictalake.errors import ConfigError\n"
        "from dictalake.sandbox.messages import CallLimits\n"
        "from dictalake.sandbox.pool import Sandbox\n"
        "from tests.attacks.old_kernel import forget\n"
        "from tests.unit.sandbox.functions import behave\n"
        "forget(['landlock'])\n"
        "limits = CallLimits(cpu_s=5.0, memory_mb=150.0)\n"
        "print(Sandbox(behave, limits).call(b'work', 'r1', {})[0]['said'])\n"
        "try:\n"
        "    Sandbox(behave, limits, level='require').call(b'work', 'r1', {})\n"
        "except ConfigError as error:\n"
        "    print('refused' if 'Landlock' in str(error) else error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in [*sys.path, os.getcwd()] if path)}
    told = subprocess.run([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert told.stdout.split() == ["work", "refused"]


@ON_OLD_KERNEL
def test_doctor_says_what_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    from dictalake.cli.doctor_checks import CheckFailed, check_sandbox

    assert check_sandbox(REQUIRE).startswith("decoders are confined by Landlock")
    monkeypatch.setattr("dictalake.sandbox.levels.probe", lambda: Holds(seccomp=True))
    with pytest.raises(CheckFailed, match="missing: Landlock") as caught:
        check_sandbox(Config())
    assert caught.value.state == "warn"
    with pytest.raises(ConfigError):
        check_sandbox(REQUIRE)


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("/usr/lib/x86_64-linux-gnu/libc.so.6", True),
        ("/lib64/ld-linux-x86-64.so.2", True),
        ("/lib/ld-linux-aarch64.so.1", True),
        ("/lib/libc-2.31.so", True),
        ("/lib/ld-musl-x86_64.so.1", True),
        ("/home/me/libcrypto.so.3", False),
        ("/home/me/ld-tools/plugin.so", False),
        ("/home/me/libc-work/data.bin", False),
        ("libc.so.6", False),
    ],
)
def test_only_the_folder_of_the_c_library_itself_stays_readable(path: str, is_one: bool) -> None:
    assert bool(child._C_LIBRARY.fullmatch(path)) == is_one


def test_the_c_library_of_this_process_is_found() -> None:
    if sys.platform == "linux":
        assert any(Path(folder).glob("libc.so.6") or Path(folder).glob("ld-musl*") for folder in child.find_readable())
