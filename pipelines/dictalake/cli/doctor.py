"""Checks what a run needs on this machine, with the configuration that the run will have, and says what to fix."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
from packaging.requirements import Requirement
from packaging.version import Version

from dictalake.archive.fetch import fetch
from dictalake.archive.manifest import scan_recordings
from dictalake.audio.formats.read_audio import read_audio
from dictalake.audio.resample import resample_blocks
from dictalake.config.sections import Config
from dictalake.errors import AccessDenied, CredentialsExpired, DictalakeError, TranscriptionError, name_place
from dictalake.records import SAMPLE_RATE_HZ
from dictalake.workflow.stages.load import read_patient_key

OK, WARN, FAIL = "ok", "warn", "FAIL"
CGROUP = Path("/sys/fs/cgroup")
_READ_AT_MOST, _READ_FOR_S = 20, 30.0  # recordings that are tried; no more once it took so long and one could be read
_REFUSED = (AccessDenied.reason, CredentialsExpired.reason)  # one of these is hardly ever alone
_SKEW_S = 30.0  # heartbeats of claims are compared across machines
_SPILL_GB, _SHARED_SHARE = 10.0, 0.3


@dataclass(frozen=True)
class CheckResult:
    """One line of the table. ``todo`` is empty where nothing is to do."""

    check: str
    state: str
    what: str
    todo: str = ""


class CheckFailed(Exception):
    """A check found something: FAIL unless ``state`` says otherwise."""

    def __init__(self, what: str, todo: str, state: str = FAIL) -> None:
        super().__init__(what)
        self.what, self.todo, self.state = what, todo, state


@dataclass(frozen=True)
class Machine:
    """What a run may use here. ``free_bytes`` counts what the kernel would give back from its cache."""

    cpus: int
    memory_bytes: int
    free_bytes: int


def examine(config: Config) -> Iterator[CheckResult]:
    """Every check of ``CHECKS``. What fails says what to do: its own words, or else those of the check."""
    for name, (check, todo) in CHECKS.items():
        try:
            yield CheckResult(name, OK, check(config))
        except CheckFailed as trouble:
            yield CheckResult(name, trouble.state, trouble.what, trouble.todo)
        except DictalakeError as error:
            yield CheckResult(name, FAIL, str(error), todo)
        except (OSError, ValueError, RuntimeError, ImportError, MemoryError) as error:
            said = getattr(error, "strerror", None) or (str(error).splitlines() or [""])[0][:200]
            yield CheckResult(name, FAIL, f"{type(error).__name__}: {said}", todo)
        except Exception as error:  # where a damaged file leads a library: the other checks are made all the same
            yield CheckResult(name, FAIL, name_place(error), todo)


def check_python(config: Config) -> str:
    version, (system, _) = sys.version_info[:2], (platform.system(), platform.machine())
    if not (3, 11) <= version <= (3, 12):
        raise CheckFailed(f"Python {platform.python_version()}", "use Python 3.11 or 3.12")
    if system != "Linux":
        raise CheckFailed(f"Python {platform.python_version()} on {system}", "decoders are only locked in on Linux", WARN)
    return f"Python {platform.python_version()}, {system} {platform.machine()}"


def check_packages(config: Config) -> str:
    """Against what this version of dictalake asks for."""
    wanted = [Requirement(text) for text in importlib.metadata.requires("dictalake") or ()]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = []
    for one in wanted:
        try:
            found = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            found = None
        if found is None or not one.specifier.contains(Version(found), prereleases=True):
            wrong.append(f"{one.name} {found or 'missing'} (wanted {one.specifier or 'any'})")
    if wrong:
        raise CheckFailed(", ".join(wrong), "pip install --constraint constraints.txt dictalake")
    return f"{len(wanted)} packages as wanted"


def check_patient_key(config: Config) -> str:
    if not config.archive.patient_fields:
        return "not needed: archive.patient_fields is empty"
    read_patient_key()
    return f"there, for {len(config.archive.patient_fields)} fields"


def check_archive(config: Config) -> str:
    """Lists, reads and decodes; the recordings are not named."""
    if config.archive.uri is None and config.archive.manifest is None and config.archive.inventory is None:
        raise CheckFailed("no archive is given", "give --archive.uri, --archive.manifest or --archive.inventory")
    started = time.monotonic()
    recordings = list(islice(scan_recordings(config.archive), _READ_AT_MOST))
    if not recordings:
        raise CheckFailed("it was listed and holds no recording", "check archive.uri and archive.include")
    listed_s, reasons, heard_s = time.monotonic() - started, Counter[str](), list[float]()
    started = time.monotonic()
    for recording in recordings:
        try:
            content = fetch(recording, config.archive, limits=config.limits)
            audio = read_audio(content, recording.recording_id, consume=resample_blocks)
            heard_s.append(len(audio.samples[0]) / SAMPLE_RATE_HZ)
        except TranscriptionError as error:
            reasons[error.reason] += 1
        if heard_s and time.monotonic() - started > _READ_FOR_S:
            break
    took_s, tried = time.monotonic() - started, len(heard_s) + reasons.total()
    if reasons:
        counts = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        share = f"{reasons.total()} of" if heard_s else "none of"
        what = f"{share} the first {tried} recordings could {'not ' if heard_s else ''}be read: {counts}"
        if any(reason in reasons for reason in _REFUSED):
            raise CheckFailed(what, "give this machine the right to read all of it, with credentials that last")
        todo = "look the reasons up in the README; a run makes failed rows of such recordings"
        raise CheckFailed(what, todo, WARN if heard_s else FAIL)
    return f"listed in {listed_s:.1f} s; {tried} read and decoded, {sum(heard_s):.0f} s of sound in {took_s:.2f} s"


def check_lake_objects(config: Config) -> str:
    from dictalake.lake.probes import is_new, probe_objects

    new = "; lake.uri is a folder that is not there yet: a run would make it" if is_new(config.lake) else ""
    ahead_s = probe_objects(config.lake)
    if abs(ahead_s) > _SKEW_S:
        raise CheckFailed(
            f"written, read and removed; its clock is {ahead_s:+.0f} s from this machine's{new}",
            "set the clock (NTP): runs tell by it whether another one is alive",
            WARN,
        )
    return f"written, listed, read and removed{new}"


def check_lake_commits(config: Config) -> str:
    from dictalake.lake.probes import probe_commits

    race = probe_commits(config.lake)
    if race.lost:
        raise CheckFailed(
            f"{race.lost} of {race.commits} commits at the same time are lost: a second writer overwrites the first",
            "take a storage that refuses to write an object a second time (S3: If-None-Match, GCS: generation match), and no "
            "gateway before it that drops the condition",
        )
    return f"{race.commits} commits of writers at the same time, none is lost"


def check_lake_table(config: Config) -> str:
    from dictalake.lake.delta import has_table, open_table
    from dictalake.lake.schema import SCHEMA_VERSION, TRANSCRIPTS
    from dictalake.lake.staged_files import TRANSCRIPTS_FOLDER
    from dictalake.lake.storage import open_storage

    storage = open_storage(config.lake, TRANSCRIPTS_FOLDER)
    if not has_table(storage):
        return f"there is none yet: a run makes it, schema version {SCHEMA_VERSION}"
    return f"version {open_table(storage, TRANSCRIPTS).version()}, schema version {SCHEMA_VERSION}"


def check_model(config: Config) -> str:
    """Loads it and has it hear a second of silence."""
    from dictalake.acoustic.checkpoint import find_checkpoint
    from dictalake.acoustic.engines.base import settle
    from dictalake.acoustic.engines.open import open_engine
    from dictalake.acoustic.model import open_model

    if config.acoustic.gives_text:
        settle(config.acoustic)  # without its packages there is no need to read gigabytes first
    checkpoint = find_checkpoint(config.acoustic)
    name = f"{checkpoint.identity.model_id}, sha256 {checkpoint.identity.sha256[:12]}…"
    silence = np.zeros(SAMPLE_RATE_HZ, dtype=np.int16)
    if config.acoustic.gives_text:
        engine = open_engine(config.acoustic, look_at_machine().cpus)
        started = time.monotonic()
        engine.hear([silence])
        took_ms = 1000 * (time.monotonic() - started)
        return f"{name}; a second of silence heard in {took_ms:.0f} ms, {engine.dtype} on {engine.device}"
    model = open_model(config.acoustic, config.windows.length_s)
    started = time.monotonic()
    (emitted,) = model.emit([silence])
    took_ms = 1000 * (time.monotonic() - started)
    return f"{name}; {len(emitted)} frames of a second of silence in {took_ms:.0f} ms, {model.dtype} on {model.device}"


def check_decoder(config: Config) -> str:
    from dictalake.acoustic.checkpoint import find_checkpoint, locate_lm
    from dictalake.decoding.base import open_decoder
    from dictalake.workflow.identity import read_vocabulary

    if config.acoustic.gives_text:
        return "not needed: the engine gives text itself"
    vocabulary, _ = read_vocabulary(find_checkpoint(config.acoustic))
    decoding = locate_lm(config).decoding
    decoder = open_decoder(decoding, vocabulary)
    with_lm = "" if decoding.kind == "greedy" or decoding.lm is None else " with its language model"
    if decoder.name.startswith("pyctcdecode"):
        raise CheckFailed(f"{decoder.name}{with_lm}", "ctc-beam-decoder, which is faster, does not load here", WARN)
    return f"{decoder.name}{with_lm}"


def check_gpu(config: Config) -> str:
    import torch

    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return ", ".join(f"{card.name}, {card.total_memory / 1e9:.0f} GB" for card in cards)
    if config.acoustic.device == "cuda":
        raise CheckFailed("acoustic.device is cuda and PyTorch sees no GPU", "install a CUDA build of torch, or the driver")
    if Path("/dev/nvidiactl").exists():
        raise CheckFailed("there is a GPU, and PyTorch does not see it", "install a CUDA build of torch", WARN)
    return "none: the model runs on CPUs"


def check_workers(config: Config) -> str:
    """The plan of a run on this machine alone."""
    if config.ray.address:
        return "ray.address is set: the cluster's resources are checked when the run starts"
    import torch

    from dictalake.workflow.cluster import Resources, make_plan

    machine = look_at_machine()
    cpus, free_mb = config.ray.cpus or machine.cpus, machine.free_bytes / 1e6
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    plan = make_plan(config, Resources(cpus, gpus, memory_mb=free_mb))
    asked_mb = sum(stage.workers * stage.memory_mb for stage in plan.stages)
    workers = ", ".join(f"{stage.workers} {stage.name}" for stage in plan.stages)
    if asked_mb > 0.9 * free_mb:
        raise CheckFailed(
            f"{workers} ask for {asked_mb:,.0f} MB, {free_mb:,.0f} are free", "free memory, or lower ray.*_memory_mb", WARN
        )
    return f"{cpus} CPUs, {gpus} GPUs: {workers}; {asked_mb:,.0f} of {free_mb:,.0f} MB that are free"


def check_disk(config: Config) -> str:
    """Where Ray spills and keeps its objects."""
    spill_gb = shutil.disk_usage(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())).free / 1e9
    if spill_gb < _SPILL_GB:
        raise CheckFailed(f"{spill_gb:.1f} GB free in the temporary folder", f"free {_SPILL_GB:g} GB, or set RAY_TMPDIR", WARN)
    shared, holds = Path("/dev/shm"), ""
    if shared.exists():
        shared_gb, memory_gb = shutil.disk_usage(shared).total / 1e9, look_at_machine().memory_bytes / 1e9
        holds = f"/dev/shm holds {shared_gb:.1f} GB, there are {memory_gb:.1f} GB of memory"
        if shared_gb < _SHARED_SHARE * memory_gb:
            todo = "give the container more: --shm-size, or an emptyDir of medium Memory; Ray is slower without"
            raise CheckFailed(holds, todo, WARN)
    return "; ".join(filter(None, [f"{spill_gb:,.0f} GB free to spill", holds]))


def look_at_machine(cgroup: Path | None = None) -> Machine:
    """CPUs and memory of this machine, or of the container where that has less: the limits that Ray goes by too.

    ``cgroup`` is where the kernel shows the limits, version 2 or 1: by default where a container finds its own.
    """
    cgroup = cgroup or CGROUP
    memory, cpus = psutil.virtual_memory(), os.cpu_count() or 1
    total, free = memory.total, memory.available
    for limit_file, used_file, stat_file, cache_key in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ):
        for limit in _read_numbers(cgroup / limit_file):
            cache = dict(line.split() for line in _read_lines(cgroup / stat_file)).get(cache_key, 0)
            used = sum(_read_numbers(cgroup / used_file)) - int(cache)
            total, free = min(total, limit), max(0, min(free, limit - used))
    quota = _read_numbers(cgroup / "cpu.max") or [
        number for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us") for number in _read_numbers(cgroup / "cpu" / name)
    ]
    if len(quota) == 2 and quota[1]:  # of which the first is "max" or negative where there is no limit
        cpus = min(cpus, max(1, quota[0] // quota[1]))
    return Machine(cpus, total, free)


def _read_numbers(file: Path) -> list[int]:
    """The numbers in a file of the kernel's; those that say "no limit", and a file that is not there, give none."""
    return [int(word) for line in _read_lines(file) for word in line.split() if word.isdigit()]


def _read_lines(file: Path) -> list[str]:
    return file.read_text(encoding="ascii").splitlines() if file.is_file() else []


# In the order in which a run meets what is checked; what to do where a failure's own words say no more.
CHECKS: dict[str, tuple[Callable[[Config], str], str]] = {
    "python": (check_python, "install Python 3.11 or 3.12"),
    "packages": (check_packages, "pip install --constraint constraints.txt dictalake"),
    "patient key": (check_patient_key, "set the variable that the message names, on every machine"),
    "archive": (check_archive, "check archive.uri (or manifest, inventory), its network, and the right to list and read there"),
    "lake: objects": (check_lake_objects, "check lake.uri, its network, and the right to write, list, read and delete there"),
    "lake: commits": (check_lake_commits, "check lake.uri and lake.storage_options, by which delta-rs reaches the same place"),
    "lake: table": (check_lake_table, "check lake.uri; a table of another version: see the message"),
    "model": (check_model, "check acoustic.model and acoustic.kind; fetch or copy the model's files again if they are damaged"),
    "decoder": (check_decoder, "check decoding.*; fetch or copy the language model again if it is damaged"),
    "gpu": (check_gpu, "check the driver (nvidia-smi), and that this torch is a CUDA build; or acoustic.device: cpu"),
    "workers": (check_workers, "give the machine or container more, or lower what the message names"),
    "disk": (check_disk, "set RAY_TMPDIR to a folder that is there and has room"),
}
