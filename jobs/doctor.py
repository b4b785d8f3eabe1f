"""Checks what a run needs on this machine, with the configuration that the run will have, and says what to fix.

    dictalake doctor --config medasr --archive.uri gs://bucket/dictations --lake.uri gs://lake/speech

Everything is tried and not only looked up: a recording is listed, read and decoded, an object and a Delta table are written to
the lake and removed, the model hears a second of silence. All checks are made, also when one fails. Exit code 0: nothing
failed, 2: something did. On a cluster run it where the work is done: every machine needs what is checked here.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
from packaging.requirements import Requirement
from packaging.version import Version
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from jobs.options import make_parser, parse, read_config
from pipelines.archive import read_audio
from pipelines.archive.fetch import fetch
from pipelines.archive.manifest import scan_recordings
from pipelines.audio.resample import resample_blocks
from pipelines.config import Config
from pipelines.errors import DictalakeError, TranscriptionError
from pipelines.loading import read_patient_key
from pipelines.records import SAMPLE_RATE_HZ

OK, WARN, FAIL = "ok", "warn", "FAIL"
_READ_AT_MOST = 20  # recordings that are tried until one can be decoded
_SKEW_S = 30.0  # heartbeats of claims are compared across machines
_SPILL_GB, _SHARED_SHARE = 10.0, 0.3


@dataclass(frozen=True)
class Finding:
    """One line of the table. ``todo`` is empty where nothing is to do."""

    check: str
    state: str
    what: str
    todo: str = ""


class Trouble(Exception):
    """A check found something: FAIL unless ``state`` says otherwise."""

    def __init__(self, what: str, todo: str, state: str = FAIL) -> None:
        super().__init__(what)
        self.what, self.todo, self.state = what, todo, state


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("doctor", __doc__ or "")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    arguments, overrides = parse(parser, argv)
    disable_progress_bar()
    findings = list(examine(read_config(arguments, overrides)))
    if arguments.format == "json":
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        show(findings, Console())
    return 2 if any(finding.state == FAIL for finding in findings) else 0


def examine(config: Config) -> Iterator[Finding]:
    """Every check, in the order in which a run meets what is checked."""
    checks: dict[str, Callable[[Config], str]] = {
        "python": check_python,
        "packages": check_packages,
        "patient key": check_patient_key,
        "archive": check_archive,
        "lake: objects": check_lake_objects,
        "lake: commits": check_lake_commits,
        "lake: table": check_lake_table,
        "model": check_model,
        "decoder": check_decoder,
        "gpu": check_gpu,
        "workers": check_workers,
        "disk": check_disk,
    }
    for name, check in checks.items():
        try:
            yield Finding(name, OK, check(config))
        except Trouble as trouble:
            yield Finding(name, trouble.state, trouble.what, trouble.todo)
        except DictalakeError as error:  # its words say what is allowed and what to do
            yield Finding(name, FAIL, str(error))
        except (OSError, ValueError, RuntimeError, ImportError, MemoryError) as error:
            said = getattr(error, "strerror", None) or (str(error).splitlines() or [""])[0][:200]
            yield Finding(name, FAIL, f"{type(error).__name__}: {said}", "see the message; credentials, network, installation")


def show(findings: list[Finding], console: Console) -> None:
    table = Table("check", "", "what was found", "what to do")
    colours = {OK: "green", WARN: "yellow", FAIL: "bold red"}
    for finding in findings:
        state = f"[{colours[finding.state]}]{finding.state}[/]"
        table.add_row(finding.check, state, finding.what.replace("[", r"\["), finding.todo.replace("[", r"\["))
    (console if console.is_terminal else Console(width=max(console.width, 150))).print(table)


def check_python(config: Config) -> str:
    version, (system, _) = sys.version_info[:2], (platform.system(), platform.machine())
    if not (3, 11) <= version <= (3, 12):
        raise Trouble(f"Python {platform.python_version()}", "use Python 3.11 or 3.12")
    if system != "Linux":
        raise Trouble(f"Python {platform.python_version()} on {system}", "decoders are only locked in on Linux", WARN)
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
        raise Trouble(", ".join(wrong), "pip install --constraint constraints.txt dictalake")
    return f"{len(wanted)} packages as wanted"


def check_patient_key(config: Config) -> str:
    if not config.archive.patient_fields:
        return "not needed: archive.patient_fields is empty"
    read_patient_key()
    return f"there, for {len(config.archive.patient_fields)} fields"


def check_archive(config: Config) -> str:
    """Lists, reads and decodes; the recordings are not named."""
    if config.archive.uri is None and config.archive.manifest is None and config.archive.inventory is None:
        raise Trouble("no archive is given", "give --archive.uri, --archive.manifest or --archive.inventory")
    started = time.monotonic()
    recordings = list(islice(scan_recordings(config.archive), _READ_AT_MOST))
    if not recordings:
        raise Trouble("it was listed and holds no recording", "check archive.uri and archive.include")
    listed_s, reasons = time.monotonic() - started, list[str]()
    for recording in recordings:
        started = time.monotonic()
        try:
            content = fetch(recording, config.archive, limits=config.limits)
            audio = read_audio(content, recording.recording_id, consume=resample_blocks)
        except TranscriptionError as error:
            reasons.append(error.reason)
            continue
        seconds = len(audio.samples[0]) / SAMPLE_RATE_HZ
        took_s = time.monotonic() - started
        return f"listed in {listed_s:.1f} s; a recording of {seconds:.0f} s read and decoded in {took_s:.2f} s"
    raise Trouble(
        f"none of the first {len(recordings)} recordings could be read: {', '.join(sorted(set(reasons)))}",
        "access_denied, credentials_expired: give this machine the right to read; else see the README's table of reasons",
    )


def check_lake_objects(config: Config) -> str:
    from pipelines.lake.probe import probe_objects

    ahead_s = probe_objects(config.lake)
    if abs(ahead_s) > _SKEW_S:
        raise Trouble(
            f"written, read and removed; its clock is {ahead_s:+.0f} s from this machine's",
            "set the clock (NTP): runs tell by it whether another one is alive",
            WARN,
        )
    return "written, listed, read and removed"


def check_lake_commits(config: Config) -> str:
    from pipelines.lake.probe import probe_commits

    probe_commits(config.lake)
    return "a Delta table was made once, and a second time refused"


def check_lake_table(config: Config) -> str:
    from pipelines.lake.delta import has_table, open_table
    from pipelines.lake.schema import SCHEMA_VERSION, TRANSCRIPTS
    from pipelines.lake.staging import TRANSCRIPTS_FOLDER
    from pipelines.lake.storage import open_storage

    storage = open_storage(config.lake, TRANSCRIPTS_FOLDER)
    if not has_table(storage):
        return f"there is none yet: a run makes it, schema version {SCHEMA_VERSION}"
    return f"version {open_table(storage, TRANSCRIPTS).version()}, schema version {SCHEMA_VERSION}"


def check_model(config: Config) -> str:
    """Loads it and has it hear a second of silence."""
    from pipelines.acoustic.checkpoint import find_checkpoint
    from pipelines.acoustic.model import open_model

    checkpoint = find_checkpoint(config.acoustic)
    name = f"{checkpoint.identity.model_id}, sha256 {checkpoint.identity.sha256[:12]}…"
    if config.acoustic.gives_text:
        return f"{name}; engines that give text themselves are not tried here"
    model = open_model(config.acoustic)
    started = time.monotonic()
    (emitted,) = model.emit([np.zeros(SAMPLE_RATE_HZ, dtype=np.int16)])
    took_ms = 1000 * (time.monotonic() - started)
    return f"{name}; {len(emitted)} frames of a second of silence in {took_ms:.0f} ms, {model.dtype} on {model.device}"


def check_decoder(config: Config) -> str:
    from pipelines.acoustic.checkpoint import find_checkpoint, locate_lm
    from pipelines.decoding.decoder import open_decoder
    from pipelines.transcribe import read_vocabulary

    if config.acoustic.gives_text:
        return "not needed: the engine gives text itself"
    vocabulary, _ = read_vocabulary(find_checkpoint(config.acoustic))
    decoding = locate_lm(config).decoding
    decoder = open_decoder(decoding, vocabulary)
    with_lm = "" if decoding.kind == "greedy" or decoding.lm is None else " with its language model"
    if decoder.name.startswith("pyctcdecode"):
        raise Trouble(f"{decoder.name}{with_lm}", "ctc-beam-decoder, which is faster, does not load here", WARN)
    return f"{decoder.name}{with_lm}"


def check_gpu(config: Config) -> str:
    import torch

    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return ", ".join(f"{card.name}, {card.total_memory / 1e9:.0f} GB" for card in cards)
    if config.acoustic.device == "cuda":
        raise Trouble("acoustic.device is cuda and PyTorch sees no GPU", "install a CUDA build of torch, or the driver")
    if Path("/dev/nvidiactl").exists():
        raise Trouble("there is a GPU, and PyTorch does not see it", "install a CUDA build of torch", WARN)
    return "none: the model runs on CPUs"


def check_workers(config: Config) -> str:
    """The plan of a run on this machine alone."""
    if config.ray.address:
        return "ray.address is set: the cluster's resources are checked when the run starts"
    import torch

    from pipelines.cluster import Resources, make_plan

    cpus = config.ray.cpus or os.cpu_count() or 1
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    free_mb = psutil.virtual_memory().available / 1e6
    plan = make_plan(config, Resources(cpus, gpus, memory_mb=free_mb))
    asked_mb = sum(stage.workers * stage.memory_mb for stage in plan.stages)
    workers = ", ".join(f"{stage.workers} {stage.name}" for stage in plan.stages)
    if asked_mb > 0.9 * free_mb:
        raise Trouble(
            f"{workers} ask for {asked_mb:,.0f} MB, {free_mb:,.0f} are free", "free memory, or lower ray.*_memory_mb", WARN
        )
    return f"{cpus} CPUs, {gpus} GPUs: {workers}; {asked_mb:,.0f} of {free_mb:,.0f} MB that are free"


def check_disk(config: Config) -> str:
    """Where Ray spills and keeps its objects."""
    spill_gb = shutil.disk_usage(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())).free / 1e9
    if spill_gb < _SPILL_GB:
        raise Trouble(f"{spill_gb:.1f} GB free in the temporary folder", f"free {_SPILL_GB:g} GB, or set RAY_TMPDIR", WARN)
    shared = Path("/dev/shm")
    if shared.exists():
        shared_gb, memory_gb = shutil.disk_usage(shared).total / 1e9, psutil.virtual_memory().total / 1e9
        if shared_gb < _SHARED_SHARE * memory_gb:
            todo = "give the container more: --shm-size, or an emptyDir of medium Memory; Ray is slower without"
            raise Trouble(f"/dev/shm holds {shared_gb:.1f} GB of {memory_gb:.0f} GB of memory", todo, WARN)
    return f"{spill_gb:,.0f} GB free to spill"


if __name__ == "__main__":
    sys.exit(main())
