"""Measures the memory of a node while hostile recordings are loaded at once, and compares it with what a run declares.

    python -m jobs.benchmarks node-memory --out infra/benchmarks/node_memory.json

Each recording is a deflated DICOM object of about a megabyte that inflates to almost a gigabyte; its parser makes four
copies. As many load workers as hold them all at once, each with its decoders, load them. Ten times a second the benchmark
adds up the memory of all these processes (PSS: what several share is divided among them). Declared is ``ray.load_memory_mb``
for each worker, and ``limits.decode_mb`` once for the node. Exit code 1: it took more.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid

from dictalake.archive.listing import list_recordings
from dictalake.audio.load import DECODERS, share_memory
from dictalake.cli.options import make_parser, read_config
from dictalake.config.sections import Archive, Config
from dictalake.workflow import columns
from dictalake.workflow.stages.load import Load
from jobs.benchmarks.__main__ import write_result

_PIECE = 2**24
_EVERY_S = 0.1


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("bench node-memory", __doc__ or "")
    parser.add_argument("--objects", type=int, default=16, help="hostile recordings, all at once")
    parser.add_argument("--inflated-mb", type=int, default=900, help="what one of them inflates to")
    parser.add_argument("--worker", type=Path, help="(internal) load what is in this folder, and say why it failed")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse(argv)
    config = read_config(arguments, default="demo")
    if arguments.worker is not None:
        print(json.dumps(load_folder(config, arguments.worker)))
        return 0
    workers = -(-arguments.objects // DECODERS)
    declared_mb = workers * config.ray.load_memory_mb + config.limits.decode_mb
    with tempfile.TemporaryDirectory() as folder:
        size = write_objects(Path(folder), arguments.objects, arguments.inflated_mb)
        peak_mb, largest_mb, wall_s, reasons = watch_workers(Path(folder), workers)
    result: dict[str, Any] = {
        "objects": arguments.objects,
        "object_mb": size / 1e6,
        "inflated_mb": arguments.inflated_mb,
        "workers": workers,
        "first_try_mb": share_memory(config),
        "declared_mb": declared_mb,
        "peak_mb": peak_mb,
        "largest_process_mb": largest_mb,
        "wall_s": wall_s,
        "reasons": reasons,
    }
    print(json.dumps(result, indent=1))
    write_result({"benchmark": "node-memory", **result}, arguments.out)
    return 0 if peak_mb <= declared_mb and sum(reasons.values()) == arguments.objects else 1


def write_objects(folder: Path, count: int, inflated_mb: int) -> int:
    """One folder for each worker; the size of one object in bytes."""
    data = make_hostile_object(inflated_mb * 10**6)
    for number in range(count):
        place = folder / f"{number // DECODERS:02}"
        place.mkdir(exist_ok=True)
        (place / f"{number}.dcm").write_bytes(data)
    return len(data)


def make_hostile_object(inflated_bytes: int) -> bytes:
    """A deflated DICOM object with one element of so many zeros."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = generate_uid(), generate_uid()
    with tempfile.NamedTemporaryFile() as file:
        FileDataset(file.name, Dataset(), file_meta=meta, preamble=bytes(128)).save_as(file.name, enforce_file_format=True)
        head = Path(file.name).read_bytes()
    head = head[: 144 + int.from_bytes(head[140:144], "little")]  # up to where the deflated elements begin
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    element = b"\x42\x00\x11\x00OB\0\0" + inflated_bytes.to_bytes(4, "little")  # (0042,0011) Encapsulated Document
    zeros = (packer.compress(bytes(min(_PIECE, inflated_bytes - at))) for at in range(0, inflated_bytes, _PIECE))
    return b"".join([head, packer.compress(element), *zeros, packer.flush()])


def load_folder(config: Config, folder: Path) -> dict[str, int]:
    """In a worker's process: the stage as a run has it."""
    archive = Archive.model_validate({"uri": str(folder)})
    config = config.model_copy(update={"archive": archive})
    table = columns.recordings_to_table(list(list_recordings(archive)))
    rows = [row for loaded in Load(config)(table) for row in loaded.select(["error"]).to_pylist()]
    return Counter(row["error"]["reason"] if row["error"] else "ok" for row in rows)


def watch_workers(folder: Path, workers: int) -> tuple[float, float, float, dict[str, int]]:
    """Peak of the sum and of the largest process in MB, seconds, and the outcomes."""
    started = time.monotonic()
    command = [sys.executable, "-m", "jobs.benchmarks", "node-memory", "--worker"]
    running = [
        subprocess.Popen([*command, str(folder / f"{number:02}")], stdout=subprocess.PIPE, text=True)
        for number in range(workers)
    ]
    peak = largest = 0.0
    while any(worker.poll() is None for worker in running):
        sizes = measure_tree(psutil.Process())
        peak, largest = max(peak, sum(sizes)), max(largest, *sizes)
        time.sleep(_EVERY_S)
    reasons: Counter[str] = Counter()
    for worker in running:
        assert worker.stdout is not None
        reasons.update(json.loads(worker.stdout.read()))
    return peak / 1e6, largest / 1e6, time.monotonic() - started, dict(reasons)


def measure_tree(process: psutil.Process) -> list[int]:
    """The PSS of ``process`` and of all below it, in bytes."""
    sizes = [0]
    for one in [process, *process.children(recursive=True)]:
        try:
            sizes.append(one.memory_full_info().pss)
        except psutil.Error:
            continue
    return sizes


if __name__ == "__main__":
    sys.exit(main())
