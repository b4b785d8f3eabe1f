"""``dictalake doctor``: what is in order is ok, what is not is named with what to do, and nothing is left in the lake."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dictalake.cli import doctor_checks, machine
from dictalake.cli.main import run_command
from dictalake.config.load import load_config
from dictalake.errors import ConfigError
from tests.archives_of_files import make_tar, make_zip
from tests.recordings import make_sound, write_wav

CHECKS = [
    *("python", "packages", "patient key", "sandbox", "archive", "lake: objects", "lake: commits", "lake: table"),
    "lake: domain",
    *("model", "decoder", "gpu", "workers", "disk"),
]


@pytest.fixture
def place(tmp_path: Path, random_lasr: Path) -> dict[str, str]:
    """Options of a run that would work."""
    write_wav(tmp_path / "archive/doe-jane.wav", make_sound(1.0, seed=1))
    return {
        "archive.uri": str(tmp_path / "archive"),
        "lake.uri": str(tmp_path / "lake"),
        "acoustic.model": str(random_lasr),
        "acoustic.device": "cpu",
        "decoding.kind": "greedy",
    }


def consult(options: dict[str, str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, doctor_checks.CheckResult]]:
    """Exit code, and the findings by check."""
    code = run_command("doctor", ["--format", "json", *(f"--{key}={value}" for key, value in options.items())])
    out = capsys.readouterr().out
    assert "doe-jane" not in out
    return code, {one["check"]: doctor_checks.CheckResult(**one) for one in json.loads(out)}


def test_where_a_run_would_work_nothing_fails(
    place: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = consult(place, capsys)
    assert (code, list(found)) == (0, CHECKS)
    assert [finding for finding in found.values() if finding.state == doctor_checks.FAIL] == []
    assert "; 1 read and decoded, 1 s of sound in " in found["archive"].what
    assert "9 concurrent commits, none of them lost" in found["lake: commits"].what
    assert "float32 on cpu" in found["model"].what or "bfloat16 on cpu" in found["model"].what
    assert found["decoder"].what == "greedy"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive"], "what was written to try is gone"


def test_a_lake_that_is_not_there_yet_is_said_and_not_made(
    place: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for lake in ("tpyo/year/lake", "lake"):
        code, found = consult(place | {"lake.uri": str(tmp_path / lake)}, capsys)
        what = "written, listed, read and removed; the folder lake.uri does not exist yet, a run would create it"
        assert (code, found["lake: objects"].state, found["lake: objects"].what) == (0, doctor_checks.OK, what)
        assert not (tmp_path / lake.partition("/")[0]).exists()
    (tmp_path / "year").mkdir()
    for lake in ("year/lake", "year"):
        _, found = consult(place | {"lake.uri": str(tmp_path / lake)}, capsys)
        assert ("does not exist yet" in found["lake: objects"].what) == (lake != "year")
        assert list((tmp_path / "year").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "check", "words"),
    [
        ({"archive.uri": "{}/nowhere"}, "archive", "/nowhere': there is nothing at this place"),
        ({"archive.uri": "{}/empty"}, "archive", "holds no recording"),
        ({"archive.uri": "{}/broken"}, "archive", "none of the first 1 recordings could be read: not_audio"),
        ({"acoustic.model": "{}/no-model"}, "model", "no-model"),
        ({"decoding.kind": "beam", "decoding.lm": "{}/no-lm"}, "decoder", "no such file"),
        ({"lake.uri": "{}/file/lake"}, "lake: objects", "NotADirectoryError"),
        ({"lake.uri": "ftp://host/lake"}, "lake: commits", "allowed are a path, file://, gs:// and s3://"),
        ({"acoustic.device": "cuda"}, "gpu", "PyTorch sees no GPU"),
        ({"acoustic.actors": "500"}, "workers", "take fewer actors"),
        ({"archive.patient_fields": "PatientID"}, "patient key", "DICTALAKE_PATIENT_KEY"),
    ],
)
def test_what_is_wrong_is_named_and_all_else_is_checked_too(
    place: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    check: str,
    words: str,
) -> None:
    monkeypatch.delenv("DICTALAKE_PATIENT_KEY", raising=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/note.wav").write_text("call the ward", encoding="utf-8")
    (tmp_path / "file").write_bytes(b"")
    code, found = consult(place | {key: value.format(tmp_path) for key, value in changes.items()}, capsys)
    assert (code, found[check].state, list(found)) == (2, doctor_checks.FAIL, CHECKS)
    assert words in found[check].what
    assert [one.check for one in found.values() if one.state == doctor_checks.FAIL and not one.todo] == []


def test_recordings_that_cannot_be_read_are_counted_beside_one_that_can(
    place: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a-note", "z-note"):  # one before and one after it
        (tmp_path / f"archive/{name}.wav").write_text("call the ward", encoding="utf-8")
    (tmp_path / "archive/b-empty.wav").write_bytes(b"")
    code, found = consult(place, capsys)
    assert (code, found["archive"].state) == (0, doctor_checks.WARN)
    assert found["archive"].what == "3 of the first 4 recordings could not be read: not_audio 2, empty_object 1"


def test_files_in_archive_objects_and_vox_are_read_as_a_run_reads_them(
    place: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "archive/take.vox").write_bytes(b"\x08\x80" * 2000)  # a second at 8 kHz
    sound = (tmp_path / "archive/doe-jane.wav").read_bytes()
    (tmp_path / "archive/week.zip").write_bytes(make_zip({"1.wav": sound, "2.wav": sound}))
    (tmp_path / "archive/month.tar.gz").write_bytes(make_tar({"1.wav": sound}, "w:gz"))
    place = place | {"archive.vox_rate_hz": "8000"}
    code, found = consult(place, capsys)
    assert (code, found["archive"].state) == (0, doctor_checks.OK)
    assert "; 5 read and decoded, 5 s of sound in " in found["archive"].what
    code, found = consult(place | {"archive.expand": "false"}, capsys)
    assert found["archive"].what == "2 of the first 4 recordings could not be read: unsupported_container 2"


@pytest.mark.parametrize(
    ("module", "versions", "state", "words"),
    [
        ("kenlm", {"ufal-kenlm": "26.4.1"}, None, ""),
        ("kenlm", {"ufal-kenlm": "26.4.1", "kenlm": "0.3.0"}, doctor_checks.WARN, "has the same module as ufal-kenlm"),
        (None, {"ufal-kenlm": "26.4.1"}, doctor_checks.FAIL, "its module kenlm is gone"),
    ],
)
def test_two_distributions_with_the_same_module_are_named(
    monkeypatch: pytest.MonkeyPatch, module: str | None, versions: dict[str, str], state: str | None, words: str
) -> None:
    def find_version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["ufal-kenlm>=26.4"])
    monkeypatch.setattr(importlib.metadata, "version", find_version)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: module)
    if state is None:
        assert doctor_checks.check_packages(load_config("demo", environment={})) == "1 packages as required"
        return
    with pytest.raises(doctor_checks.CheckFailed, match=words) as failed:
        doctor_checks.check_packages(load_config("demo", environment={}))
    assert failed.value.state == state
    assert failed.value.todo.endswith("pip install --force-reinstall --no-deps ufal-kenlm")


@pytest.mark.parametrize(("version", "state"), [((3, 10), doctor_checks.FAIL), ((3, 13), None), ((3, 14), doctor_checks.WARN)])
def test_a_python_without_tests_is_named(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], state: str | None) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    if state is None:
        assert doctor_checks.check_python(load_config("demo", environment={})).startswith("Python ")
        return
    with pytest.raises(doctor_checks.CheckFailed, match="with which dictalake is not tested") as failed:
        doctor_checks.check_python(load_config("demo", environment={}))
    assert failed.value.state == state


def test_nothing_heavy_is_imported_before_a_check_needs_it() -> None:
    heavy = "{'torch', 'transformers', 'ray', 'pyarrow', 'pandas', 'scipy'}"
    script = f"import sys, dictalake.cli.doctor; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert found.stdout == "[]\n"


# Models


def test_a_model_that_is_cut_off_is_fetched_again(
    place: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(place["acoustic.model"], tmp_path / "model")
    os.truncate(model / "model.safetensors", 1000)
    code, found = consult(place | {"acoustic.model": str(model)}, capsys)
    assert (code, found["model"].state) == (2, doctor_checks.FAIL)
    assert "fetch or copy the model's files again if they are damaged" in found["model"].todo


def test_a_damaged_tokenizer_stops_no_other_check(
    place: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(place["acoustic.model"], tmp_path / "model")
    (model / "tokenizer.json").write_text("{}", encoding="utf-8")
    code, found = consult(place | {"acoustic.model": str(model)}, capsys)
    assert (code, found["decoder"].state, list(found)) == (2, doctor_checks.FAIL, CHECKS)


@pytest.fixture
def garbage(tmp_path: Path) -> dict[str, str]:
    """Options of a Whisper whose files have the right names."""
    folder = tmp_path / "whisper"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"garbage")
    (folder / "config.json").write_text("{}", encoding="utf-8")
    return {"acoustic.kind": "whisper", "acoustic.model": str(folder)}


def test_a_whisper_that_cannot_run_fails(
    place: dict[str, str], garbage: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = consult(place | garbage, capsys)
    assert (code, found["model"].state) == (2, doctor_checks.FAIL)
    assert "faster-whisper" in found["model"].what  # which cannot load it, or is not installed


def test_a_whisper_without_its_package_fails(
    place: dict[str, str], garbage: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages"
    installed.mkdir()
    folders = [Path(folder) for folder in sys.path if folder.endswith("-packages")]
    for package in (package for folder in folders for package in folder.iterdir()):
        if not package.name.lower().startswith("faster_whisper") and not (installed / package.name).exists():
            (installed / package.name).symlink_to(package)
    config = load_config(None, list((place | garbage).items()))
    others = [folder for folder in sys.path if not folder.endswith("-packages")]
    with monkeypatch.context() as patched:
        patched.setattr(sys, "path", [*others, str(installed)])
        with pytest.raises(ConfigError, match=r"^acoustic\.kind = whisper needs the package faster-whisper; install the extra"):
            doctor_checks.check_model(config)


def test_an_engine_that_gives_text_hears_silence(
    place: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.engine_models import save_random_qwen_asr

    model = save_random_qwen_asr(tmp_path / "qwen")
    engine = {"acoustic.kind": "qwen3-asr", "acoustic.model": str(model), "acoustic.dtype": "float32"}
    code, found = consult(place | engine, capsys)
    assert (code, found["model"].state) == (0, doctor_checks.OK)
    assert "; a second of silence transcribed in " in found["model"].what
    assert found["model"].what.endswith(" ms, float32 on cpu")
    (model / "chat_template.jinja").unlink()
    code, found = consult(place | engine, capsys)
    assert (code, found["model"].state) == (2, doctor_checks.FAIL)


# Containers

V2 = {"memory.max": "3000000000", "memory.current": "1000000000", "cpu.max": "100000 100000"}
V1 = {
    "memory/memory.limit_in_bytes": "3000000000",
    "memory/memory.usage_in_bytes": "1000000000",
    "memory/memory.stat": "cache 500\ntotal_inactive_file 400000000",
    "cpu/cpu.cfs_quota_us": "150000",
    "cpu/cpu.cfs_period_us": "100000",
}
FREE_V2 = {"memory.max": "max", "memory.current": "1000000000", "cpu.max": "max 100000"}
FREE_V1 = V1 | {"memory/memory.limit_in_bytes": "9223372036854771712", "cpu/cpu.cfs_quota_us": "-1"}


def write_cgroup(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n", encoding="ascii")
    return folder


@pytest.mark.parametrize(
    ("files", "free_bytes"),
    [(V2, 2_000_000_000), (V2 | {"memory.stat": "anon 5\ninactive_file 400000000"}, 2_400_000_000), (V1, 2_400_000_000)],
)
def test_a_containers_limits_are_what_a_run_has(tmp_path: Path, files: dict[str, str], free_bytes: int) -> None:
    found = machine.look_at_machine(write_cgroup(tmp_path / "cgroup", files))
    assert found == machine.Machine(cpus=1, memory_bytes=3_000_000_000, free_bytes=free_bytes)


@pytest.mark.parametrize("files", [FREE_V2, FREE_V1, {}])
def test_without_limits_it_is_the_machines(tmp_path: Path, files: dict[str, str]) -> None:
    found = machine.look_at_machine(write_cgroup(tmp_path / "cgroup", files))
    assert (found.cpus, found.memory_bytes) == (os.cpu_count(), psutil.virtual_memory().total)


def test_workers_and_disk_count_what_the_container_has(
    place: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "CGROUP", write_cgroup(tmp_path / "cgroup", V2))
    monkeypatch.setattr(doctor_checks, "_SPILL_GB", 0.0)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "not/there/yet"))
    code, found = consult(place | {"ray.emit_memory_mb": "100"}, capsys)
    assert (code, found["workers"].state) == (0, doctor_checks.WARN)
    assert "one recording at a time may take limits.decode_mb = 4,096 MB beside them; 2,000 MB" in found["workers"].what
    assert found["disk"].what.endswith("the machine 3.0 GB of memory")
    less = {"ray.emit_memory_mb": "100", "ray.load_memory_mb": "900", "limits.decode_mb": "250"}
    config = load_config(None, list((place | less).items()))
    what = doctor_checks.check_workers(config)
    assert what.startswith("1 CPUs, ")
    assert what.endswith(" MB and 250 for one heavy recording, of 2,000 free MB")
    monkeypatch.setattr(doctor_checks, "_SPILL_GB", 1e9)
    with pytest.raises(doctor_checks.CheckFailed, match=rf"the folder for Ray's files, {tmp_path}/not/there") as caught:
        doctor_checks.check_disk(config)
    assert caught.value.state == doctor_checks.WARN
    code, found = consult(place | {"ray.emit_memory_mb": "2500"}, capsys)
    assert (code, found["workers"].state) == (2, doctor_checks.FAIL)


def test_the_table_shows_each_check_with_its_state(place: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("doctor", [f"--{key}={value}" for key, value in (place | {"archive.uri": "nowhere"}).items()]) == 2
    out = capsys.readouterr().out
    assert all(f"{check} " in out for check in CHECKS)
    assert " FAIL " in out
