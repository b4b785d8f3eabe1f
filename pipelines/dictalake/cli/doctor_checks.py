"""The checks of ``dictalake doctor``. Each imports what it needs only when it runs.

A check returns what it found. It raises CheckFailed with what to do, or lets the error of what it tried pass through.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from dictalake.cli.machine import look_at_machine
from dictalake.config.sections import Config
from dictalake.errors import AccessDenied, CredentialsExpired, TranscriptionError
from dictalake.records import SAMPLE_RATE_HZ

OK, WARN, FAIL = "ok", "warn", "FAIL"
_READ_AT_MOST, _READ_FOR_S = 20, 30.0  # recordings that are tried; no more once it took so long and one could be read
_REFUSED = (AccessDenied.reason, CredentialsExpired.reason)  # one of these is hardly ever alone
_SAMPLED = 200  # transcripts
_SKEW_S = 30.0  # heartbeats of claims are compared across machines
_SPILL_GB, _SHARED_SHARE = 10.0, 0.3
_OLDEST, _NEWEST, _USE_PYTHON = (3, 11), (3, 13), "use Python 3.11, 3.12 or 3.13"


@dataclass(frozen=True)
class CheckResult:
    """One line of the table. ``todo`` is empty where there is nothing to do."""

    check: str
    state: str
    what: str
    todo: str = ""


class CheckFailed(Exception):
    """A check found something: FAIL unless ``state`` says otherwise."""

    def __init__(self, what: str, todo: str, state: str = FAIL) -> None:
        super().__init__(what)
        self.what, self.todo, self.state = what, todo, state


def check_python(config: Config) -> str:
    version, (system, _) = sys.version_info[:2], (platform.system(), platform.machine())
    if not _OLDEST <= version <= _NEWEST:
        state = WARN if version > _NEWEST else FAIL
        raise CheckFailed(f"Python {platform.python_version()}, with which dictalake is not tested", _USE_PYTHON, state)
    return f"Python {platform.python_version()}, {system} {platform.machine()}"


def _check_kenlm() -> None:
    """Two distributions install the same file, so removing one of them takes it from the other."""
    again = "pip install --force-reinstall --no-deps ufal-kenlm"
    if importlib.util.find_spec("kenlm") is None:
        raise CheckFailed("ufal-kenlm is installed, but its module kenlm is gone", again)
    with suppress(importlib.metadata.PackageNotFoundError):
        found = importlib.metadata.version("kenlm")
        what = f"kenlm {found} is installed too, and has the same module as ufal-kenlm"
        raise CheckFailed(what, f"pip uninstall kenlm, then {again}", WARN)


def check_packages(config: Config) -> str:
    """Compares the installed packages with what this version of dictalake requires."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    wanted = [Requirement(text) for text in importlib.metadata.requires("dictalake") or ()]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = []
    for one in wanted:
        try:
            found = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            found = None
        if found is None or not one.specifier.contains(Version(found), prereleases=True):
            wrong.append(f"{one.name} {found or 'missing'} (required: {one.specifier or 'any'})")
    if wrong:
        raise CheckFailed(", ".join(wrong), "pip install --constraint constraints.txt dictalake")
    _check_kenlm()
    return f"{len(wanted)} packages as required"


def check_patient_key(config: Config) -> str:
    if not config.archive.patient_fields:
        return "not needed: archive.patient_fields is empty"
    from dictalake.workflow.stages.load import read_patient_key

    read_patient_key()
    return f"set, for {len(config.archive.patient_fields)} fields"


def check_sandbox(config: Config) -> str:
    """Lets a child confine itself and try to break out."""
    from dictalake.sandbox.levels import check_level, describe, find_missing, probe

    holds = probe()
    check_level(config.sandbox.level, holds)
    if find_missing(holds):
        raise CheckFailed(describe(holds), "use a kernel that has it before you read files from strangers", WARN)
    return describe(holds)


def check_archive(config: Config) -> str:
    """Lists, reads and decodes as a run does; does not name the recordings."""
    from dictalake.archive.load_recording import load_recording
    from dictalake.archive.manifest import scan_recordings
    from dictalake.audio.load import AudioLoader
    from dictalake.workflow.archive_checks import begin_findings

    if config.archive.uri is None and config.archive.manifest is None and config.archive.inventory is None:
        raise CheckFailed("no archive is given", "give --archive.uri, --archive.manifest or --archive.inventory")
    started = time.monotonic()
    findings = begin_findings(config, config.archive)
    recordings = list(islice(scan_recordings(config.archive, findings), _READ_AT_MOST))
    if not recordings:
        raise CheckFailed("the listing holds no recording", "check archive.uri and archive.include")
    listed_s, reasons, read_s = time.monotonic() - started, Counter[str](), list[float]()
    loader = AudioLoader(config)
    started = time.monotonic()
    inside = chain.from_iterable(load_recording(recording, config, loader) for recording in recordings)
    for _, loaded in islice(inside, _READ_AT_MOST):
        if isinstance(loaded, TranscriptionError):
            reasons[loaded.reason] += 1
        else:
            read_s.append(loaded.duration_s)
        if read_s and time.monotonic() - started > _READ_FOR_S:
            break
    took_s, tried = time.monotonic() - started, len(read_s) + reasons.total()
    if reasons:
        counts = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        share = f"{reasons.total()} of" if read_s else "none of"
        what = f"{share} the first {tried} recordings could {'not ' if read_s else ''}be read: {counts}"
        if any(reason in reasons for reason in _REFUSED):
            raise CheckFailed(what, "give this machine the right to read the whole archive, with credentials that last")
        todo = "look up the reasons in the documentation; a run writes a failed row for each such recording"
        raise CheckFailed(what, todo, WARN if read_s else FAIL)
    return f"listed in {listed_s:.1f} s; {tried} read and decoded, {sum(read_s):.0f} s of sound in {took_s:.2f} s"


def check_lake_objects(config: Config) -> str:
    from dictalake.lake.probes import is_new, probe_objects

    new = "; the folder lake.uri does not exist yet, a run would create it" if is_new(config.lake) else ""
    ahead_s = probe_objects(config.lake)
    if abs(ahead_s) > _SKEW_S:
        raise CheckFailed(
            f"written, read and removed; its clock differs by {ahead_s:+.0f} s from this machine's{new}",
            "set the clock (NTP); runs use it to tell whether another run is alive",
            WARN,
        )
    return f"written, listed, read and removed{new}"


def check_lake_commits(config: Config) -> str:
    from dictalake.lake.probes import probe_commits

    race = probe_commits(config.lake)
    if race.lost:
        raise CheckFailed(
            f"{race.lost} of {race.commits} concurrent commits are lost: a second writer overwrites the first",
            "use a storage that refuses to write an object a second time (S3: If-None-Match, GCS: generation match), without a "
            "gateway that drops the condition",
        )
    return f"{race.commits} concurrent commits, none of them lost"


def check_lake_table(config: Config) -> str:
    from dictalake.lake.delta import has_table, open_table
    from dictalake.lake.places import TRANSCRIPTS_FOLDER
    from dictalake.lake.schema import SCHEMA_VERSION, TRANSCRIPTS
    from dictalake.lake.storage import open_storage

    storage = open_storage(config.lake, TRANSCRIPTS_FOLDER)
    if not has_table(storage):
        return f"none yet; a run creates it with schema version {SCHEMA_VERSION}"
    return f"version {open_table(storage, TRANSCRIPTS).version()}, schema version {SCHEMA_VERSION}"


def check_domain(config: Config) -> str:
    """Samples the lake: are its transcripts of dictations, as the model expects?"""
    from dictalake.lake.delta import has_table
    from dictalake.lake.places import TRANSCRIPTS_FOLDER
    from dictalake.lake.query import connect
    from dictalake.lake.storage import open_storage
    from dictalake.transcript.domain import measure_domain, warn_of_conversations

    if not has_table(open_storage(config.lake, TRANSCRIPTS_FOLDER)):
        return "nothing transcribed yet"
    if config.acoustic.gives_text:
        return "not judged: the engine was not made for dictations alone"
    with connect(config.lake.uri or "", config.lake.storage_options, names=("transcripts",)) as database:
        sample = f"SELECT status, confidence, quality, words FROM transcripts LIMIT {_SAMPLED}"
        signs = [found for row in database.sql(sample).to_arrow_table().to_pylist() if (found := measure_domain(row))]
    conversations = sum(one.looks_like_conversation for one in signs)
    if warning := warn_of_conversations(len(signs), conversations):
        what, _, todo = warning.partition(": ")
        raise CheckFailed(what, todo, WARN)
    return f"{conversations} of {len(signs)} transcripts look like conversations"


def check_model(config: Config) -> str:
    """Loads the model and gives it a second of silence."""
    import numpy as np
    from transformers.utils.logging import disable_progress_bar

    from dictalake.acoustic.checkpoint import find_checkpoint
    from dictalake.acoustic.engines.base import resolve_engine
    from dictalake.acoustic.engines.open import open_engine
    from dictalake.acoustic.model import open_model

    if config.acoustic.gives_text:
        resolve_engine(config.acoustic)  # first: without its packages there is no need to read gigabytes
    disable_progress_bar()
    checkpoint = find_checkpoint(config.acoustic)
    name = f"{checkpoint.identity.model_id}, sha256 {checkpoint.identity.sha256[:12]}…"
    silence = np.zeros(SAMPLE_RATE_HZ, dtype=np.int16)
    if config.acoustic.gives_text:
        engine = open_engine(config.acoustic, look_at_machine().cpus)
        started = time.monotonic()
        engine.recognize([silence])
        took_ms = 1000 * (time.monotonic() - started)
        return f"{name}; a second of silence transcribed in {took_ms:.0f} ms, {engine.dtype} on {engine.device}"
    model = open_model(config.acoustic, config.windows.length_s)
    started = time.monotonic()
    (emitted,) = model.emit([silence])
    took_ms = 1000 * (time.monotonic() - started)
    return f"{name}; {len(emitted)} frames of a second of silence in {took_ms:.0f} ms, {model.dtype} on {model.device}"


def check_decoder(config: Config) -> str:
    from dictalake.acoustic.checkpoint import find_checkpoint, locate_lm
    from dictalake.decoding.base import open_decoder
    from dictalake.decoding.hotwords import read_list
    from dictalake.workflow.identity import read_vocabulary

    if config.acoustic.gives_text:
        return "not needed: this engine returns text"
    vocabulary, _ = read_vocabulary(find_checkpoint(config.acoustic))
    decoding = locate_lm(config).decoding
    decoder = open_decoder(decoding, vocabulary)
    hotwords = read_list(decoding, vocabulary)
    if hotwords is not None and (warning := hotwords.explain_left_out()) is not None:
        raise CheckFailed(f"{decoder.name}; {warning.partition(';')[0]}", "write these terms as they are spoken", WARN)
    with_lm = "" if decoding.kind == "greedy" or decoding.lm is None else " with its language model"
    if decoder.name.startswith("pyctcdecode"):
        raise CheckFailed(f"{decoder.name}{with_lm}", "decoding.engine: native gives the same words many times faster", WARN)
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
    """Plans a run on this machine. Of a cluster it says whether anybody may use it."""
    if config.ray.address:
        return _look_at_cluster(config.ray.address)
    import torch

    from dictalake.audio.load import share_memory
    from dictalake.workflow.plan import Resources, make_plan

    machine = look_at_machine()
    cpus, free_mb = config.ray.cpus or machine.cpus, machine.free_bytes / 1e6
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    plan = make_plan(config, Resources(cpus, gpus, memory_mb=free_mb))
    asked_mb = sum(stage.workers * stage.memory_mb for stage in plan.stages)
    workers = ", ".join(f"{stage.workers} {stage.name}" for stage in plan.stages)
    if asked_mb > 0.9 * free_mb:
        raise CheckFailed(
            f"{workers} need {asked_mb:,.0f} MB, {free_mb:,.0f} MB are free", "free memory, or lower ray.*_memory_mb", WARN
        )
    heavy_mb = config.limits.decode_mb if share_memory(config) < config.limits.decode_mb else 0.0
    if asked_mb + heavy_mb > free_mb:
        raise CheckFailed(
            f"{workers} need {asked_mb:,.0f} MB, and one recording at a time may take limits.decode_mb = {heavy_mb:,.0f} MB "
            f"beside them; {free_mb:,.0f} MB are free",
            "free memory, or lower limits.decode_mb; a very long or hostile recording may end workers",
            WARN,
        )
    more = f" and {heavy_mb:,.0f} for one heavy recording" if heavy_mb else ""
    return f"{cpus} CPUs, {gpus} GPUs: {workers}; {asked_mb:,.0f} MB{more}, of {free_mb:,.0f} free MB"


def _look_at_cluster(address: str) -> str:
    from dictalake.workflow.private_ray import is_open

    if "://" in address:  # a proxy such as Ray Client, which says nothing of the cluster behind it
        return "whether the cluster asks for a token cannot be told from here; its resources are checked when the run starts"
    is_for_all = is_open(address)
    if is_for_all is None:
        raise CheckFailed(f"ray.address = {address}: no Ray cluster answers there", "start one, or leave the key out")
    if is_for_all:
        raise CheckFailed(
            f"ray.address = {address}: the cluster is open; it asks for no token, so whoever reaches it can run programs on it "
            "and read what the run reads",
            "start the cluster with RAY_AUTH_MODE=token and a secret RAY_AUTH_TOKEN, and give the token to this machine",
            WARN,
        )
    return "the cluster asks for a token; its resources are checked when the run starts"


def check_disk(config: Config) -> str:
    """Looks at the places where a run has Ray spill and keep its objects."""
    from dictalake.workflow.private_ray import find_parent

    parent = find_parent()
    there = next(folder for folder in (parent, *parent.parents) if folder.exists())  # a run makes what is missing
    spill_gb = shutil.disk_usage(there).free / 1e9
    if spill_gb < _SPILL_GB:
        what = f"the folder for Ray's files, {parent}, has {spill_gb:.1f} GB free"
        raise CheckFailed(what, f"free {_SPILL_GB:g} GB, or set RAY_TMPDIR", WARN)
    shared, holds = Path("/dev/shm"), ""
    if shared.exists():
        shared_gb, memory_gb = shutil.disk_usage(shared).total / 1e9, look_at_machine().memory_bytes / 1e9
        holds = f"/dev/shm has {shared_gb:.1f} GB, the machine {memory_gb:.1f} GB of memory"
        if shared_gb < _SHARED_SHARE * memory_gb:
            todo = "give the container more (--shm-size, or an emptyDir of medium Memory); Ray is slower without it"
            raise CheckFailed(holds, todo, WARN)
    return "; ".join(filter(None, [f"{spill_gb:,.0f} GB free to spill", holds]))


# In the order in which a run needs them. The advice is for failures that bring none of their own.
CHECKS: dict[str, tuple[Callable[[Config], str], str]] = {
    "python": (check_python, _USE_PYTHON),
    "packages": (check_packages, "pip install --constraint constraints.txt dictalake"),
    "patient key": (check_patient_key, "set the variable that the message names, on every machine"),
    "sandbox": (check_sandbox, "run on a kernel with Landlock and seccomp, or set sandbox.level to auto"),
    "archive": (check_archive, "check archive.uri (or manifest, inventory), its network, and the right to list and read there"),
    "lake: objects": (check_lake_objects, "check lake.uri, its network, and the right to write, list, read and delete there"),
    "lake: commits": (
        check_lake_commits,
        "check lake.uri and lake.storage_options; delta-rs must reach the same place with them",
    ),
    "lake: table": (check_lake_table, "check lake.uri; the message says what to do with a table of another version"),
    "lake: domain": (check_domain, "check lake.uri; the message says what to do"),
    "model": (check_model, "check acoustic.model and acoustic.kind; fetch or copy the model's files again if they are damaged"),
    "decoder": (check_decoder, "check decoding.*; fetch or copy the language model again if it is damaged"),
    "gpu": (check_gpu, "check the driver (nvidia-smi), and that this torch is a CUDA build; or acoustic.device: cpu"),
    "workers": (check_workers, "give the machine or container more, or lower what the message names"),
    "disk": (check_disk, "set RAY_TMPDIR to an existing folder with enough room"),
}
