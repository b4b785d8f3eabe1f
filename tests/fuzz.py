"""Mutates files of every kind and runs the real load stage over them: one row each, no crash, no hang, whatever the bytes.

Every other mutant is of a file whose sound is known, and damaged so that one knows what is left of it
(``tests/known_truth.py``): its row must account for every second, or be an error.

python -m tests.fuzz --count 100000 --seed 1
"""

from __future__ import annotations

import argparse
import gzip
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from rich.console import Console
from rich.table import Table

from dictalake.archive.listing import list_recordings
from dictalake.config.sections import Config, Limits
from dictalake.records import SAMPLE_RATE_HZ
from dictalake.workflow import columns
from dictalake.workflow.stages.load import Load
from tests.archives_of_files import HOSTILE, WHOLE_FILE, make_tar, make_zip
from tests.known_truth import FAULTS, Mutant, judge, make_mutant
from tests.unit.audio.formats.archive_samples import encode, make_dicom, make_group, make_tone
from tests.unit.audio.formats.test_formats import EXACT, LOSSY, dss, grundig_dss, random_bytes, truespeech
from tests.unit.audio.formats.test_kinds import EXACT as MORE_EXACT
from tests.unit.audio.formats.test_kinds import LOSSY as MORE_LOSSY

_BLOCK = 200
_EXTREMES = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_SHORT = 8_000  # bytes: most of a file's structure is at its start, and short files are many a second
_INDEX_LAST = ("3gp", "mp4", "mov", "avi-with")  # nothing of these can be read where the end is cut
# decode_s and decode_mb are what a mutant of a few kilobytes may cost at most
LIMITS = {"decode_s": 20.0, "decode_mb": 1024.0, "expanded_mb": 500.0, "members": 1000}
# Rows are judged whatever share of their sound is lost, so that accounts of heavy damage are seen too.
LIMITS |= {"lost_ratio": 1.0} if "lost_ratio" in Limits.model_fields else {}
_BAD = ("decoder_crashed", "decoder_timeout", "internal_error")


def make_seeds() -> dict[str, bytes]:
    """A valid file of every kind that is read, and of some that are refused."""
    tone = make_tone(0.25, 8_000)
    codes = (np.arange(2_000) % 251).astype(np.uint8).tobytes()
    nested = make_dicom(make_group(codes, "UB", 2_000))
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + b"\x00\x54\x00\x01SQ\x00\x00\xff\xff\xff\xff"
    seeds = {f"{container}-{subtype}".lower(): encode(tone, 8_000, container, subtype) for container, subtype in EXACT}
    seeds |= {name: make()[:_SHORT] for name, (make, *_) in LOSSY.items()}
    more = {name: make for name, (make, *_) in (*MORE_EXACT.items(), *MORE_LOSSY.items())}
    seeds |= {name: more[name]()[:_SHORT] for name in more if not name.startswith(_INDEX_LAST)}
    seeds |= {
        "dss-sp": dss(0, random_bytes(506 * 4)),
        "grundig": grundig_dss(3),
        "truespeech": truespeech(20),
        "dicom-mulaw": make_dicom(make_group(codes, "MB", 2_000)),
        "dicom-stereo": make_dicom(make_group(codes, "SS", 500, 2), make_group(codes, "SS", 500, 2)),
        "dicom-bare": make_dicom(make_group(codes, "AB", 2_000), preamble=False, syntax=ImplicitVRLittleEndian),
        "dicom-big": make_dicom(make_group(codes, "SS", 1_000), syntax=ExplicitVRBigEndian),
        "dicom-deflated": make_dicom(make_group(codes, "US", 1_000), syntax=DeflatedExplicitVRLittleEndian),
        "dicom-document": make_dicom(WaveformSequence=None, EncapsulatedDocument=encode(tone, 8_000, "WAV")),
        "dicom-nested": nested + b"\x00\x54\x00\x01SQ\x00\x00\xff\xff\xff\xff" + item * 300,
        "zip": make_zip({"a.wav": encode(tone, 8_000, "WAV"), "b/b.flac": encode(tone, 8_000, "FLAC"), "c.txt": b"text"}),
        "tar": make_tar({"a.wav": encode(tone, 8_000, "WAV", "ULAW"), "b.dcm": nested[:800], "c": b"text"}),
        "tar.gz": make_tar({"a.wav": encode(tone, 8_000, "WAV"), "b.mp3": encode(tone, 8_000, "MP3")}, "w:gz"),
        "gz": gzip.compress(encode(tone, 8_000, "WAV")),
        "text": b"FINDINGS: none.\n" * 20,
    }
    seeds |= {f"tar-{name}": WHOLE_FILE + headers[:20_000] + bytes(1024) for name, headers in HOSTILE.items()}
    return seeds


def mutate(seeds: list[bytes], rng: random.Random) -> bytes:
    """One to four damages: bytes, lengths, cuts, repeats, holes, and the tail of another file."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        if not data:
            break
        reach = min(len(data), rng.choice((16, 64, 256, len(data))))
        at = rng.randrange(reach)
        match rng.randrange(8):
            case 0 | 1:
                data[at] = rng.randrange(256)
            case 2 | 3:
                width = rng.choice((2, 4, 4, 8))
                value = rng.choice((*_EXTREMES, rng.getrandbits(32))) & (256**width - 1)
                data[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))
            case 4:
                del data[rng.randrange(len(data)) :]
            case 5:
                length = rng.randrange(1, 200)
                data[at:at] = data[at : at + length] * rng.choice((1, 2, 50))
            case 6:
                del data[at : at + rng.randrange(1, 64)]
            case 7:
                other = rng.choice(seeds)
                data[rng.randrange(len(data)) :] = other[rng.randrange(len(other)) :]
    return bytes(data[:200_000])


@dataclass
class Report:
    """What came of the mutants."""

    mutants: int = 0
    rows: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    longest_ms: float = 0.0
    peak_child_mb: float = 0.0
    took_s: float = 0.0
    wrong: list[int] = field(default_factory=list)  # mutants without a row, or with other than they should have
    bad: list[tuple[int, str, str]] = field(default_factory=list)  # number of the mutant, reason, detail
    known: Counter[str] = field(default_factory=Counter)  # of mutants whose truth is known: faults, "true", reasons of errors
    faults: list[tuple[int, str, str]] = field(
        default_factory=list
    )  # number of the mutant, fault, what was done and came of it

    @property
    def passed(self) -> bool:
        return not (self.wrong or self.bad or self.faults)

    def add(self, other: Report) -> None:
        self.mutants += other.mutants
        self.rows += other.rows
        self.reasons += other.reasons
        self.known += other.known
        self.longest_ms = max(self.longest_ms, other.longest_ms)
        self.peak_child_mb = max(self.peak_child_mb, other.peak_child_mb)
        for mine, theirs in ((self.wrong, other.wrong), (self.bad, other.bad), (self.faults, other.faults)):
            mine.extend(theirs)


def run_in_processes(count: int, seed: int, folder: Path, processes: int, keep: Path | None = None) -> Report:
    """``run`` in several processes, each with blocks of its own; prints how far it is."""
    report, started = Report(), time.monotonic()
    # Threads, decoders and their locks do not survive a fork.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        size = 10 * _BLOCK
        parts = [
            pool.submit(run, range(first, min(first + size, count)), seed, _make_folder(folder, first), keep)
            for first in range(0, count, size)
        ]
        for part in as_completed(parts):
            report.add(part.result())
            print(
                f"{report.mutants} of {count}: {len(report.bad)} bad, {len(report.faults)} faults", file=sys.stderr, flush=True
            )
    return replace(report, took_s=time.monotonic() - started)


def _make_folder(folder: Path, first: int) -> Path:
    (folder / str(first)).mkdir()
    return folder / str(first)


def run(numbers: Iterable[int], seed: int, folder: Path, keep: Path | None = None) -> Report:
    """Loads the mutants of these numbers from files in ``folder``, block by block; those that did harm are kept in ``keep``."""
    seeds = list(make_seeds().values())
    # In the jail of a run, or not at all: a decoder that a mutant takes over must find nothing to harm.
    level = "require" if sys.platform == "linux" else "auto"
    config = Config.model_validate({"archive": {"uri": str(folder)}, "limits": LIMITS, "sandbox": {"level": level}})
    load, report, started = Load(config), Report(), time.monotonic()
    waiting = list(numbers)
    with _watching(report):
        for first in range(0, len(waiting), _BLOCK):
            mutants: dict[str, bytes] = {}
            known: dict[str, Mutant] = {}
            for number in waiting[first : first + _BLOCK]:
                name, rng = f"{number:08d}", random.Random(f"{seed}-{number}")
                if number % 2:
                    known[name] = make_mutant(rng)
                    mutants[name] = known[name].data
                else:
                    mutants[name] = mutate(seeds, rng)
                (folder / name).write_bytes(mutants[name])
            loaded = pa.concat_tables(load(columns.recordings_to_table(list(list_recordings(config.archive)))))
            _count_rows(loaded, mutants, report)
            _judge_rows(loaded, known, report)
            for number, reason, _ in report.bad + report.faults if keep is not None else ():
                name = f"{number:08d}"
                if keep is not None and name in mutants:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{seed}-{name}-{reason.replace(' ', '-')}").write_bytes(mutants[name])
            report.mutants += len(mutants)
            report.rows += loaded.num_rows
            for name in mutants:
                (folder / name).unlink()
            report.took_s = time.monotonic() - started
    return report


def _count_rows(loaded: pa.Table, mutants: dict[str, bytes], report: Report) -> None:
    """One row for each mutant, or as many as its archive object says; none of a crash or a hang."""
    rows = loaded.select(["uri", "error", "load_ms", "archive_id", "archive_rows"]).to_pylist()
    of_mutant = Counter(_mutant_of(row) for row in rows)
    wanted = {_mutant_of(row): row["archive_rows"] or 1 for row in rows}
    report.wrong += [int(name) for name in mutants if of_mutant[name] != wanted.get(name, 1)]
    for row in rows:
        reason = row["error"]["reason"] if row["error"] else "ok"
        report.reasons[reason] += 1
        report.longest_ms = max(report.longest_ms, row["load_ms"] or 0)
        if reason in _BAD:
            report.bad.append((int(_mutant_of(row)), reason, row["error"]["detail"]))


def _judge_rows(loaded: pa.Table, known: dict[str, Mutant], report: Report) -> None:
    """The account of each ok row against what its mutant must hold."""
    rows = loaded.drop_columns(["waveforms"]).to_pylist()
    for index, row in enumerate(rows):
        name = _mutant_of(row)
        if name not in known:
            continue
        if row["error"]:
            report.known[row["error"]["reason"]] += 1
            continue
        mutant, waveforms = known[name], columns.read_waveforms(loaded, index)
        verdict = judge(mutant, waveforms[0], row["lost_s"], row["repairs"] or ())
        report.known.update(verdict.faults or ["true"])
        came_of_it = f"{len(waveforms[0]) / SAMPLE_RATE_HZ:.2f} s, lost {row['lost_s']}, {row['repairs']}, {verdict.placement}"
        done = f"{mutant.encoding}: {'; '.join(mutant.damages)}: {came_of_it}"
        report.faults += [(int(name), fault, done) for fault in verdict.faults]


def _mutant_of(row: dict[str, Any]) -> str:
    return str(row["uri"]).partition("#")[0].rsplit("/", 1)[1]


class _watching:  # noqa: N801
    """Looks at the memory of this process's children ten times a second."""

    def __init__(self, report: Report) -> None:
        self._report, self._done = report, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._done.wait(0.1):
            for child in me.children():
                try:
                    self._report.peak_child_mb = max(self._report.peak_child_mb, child.memory_info().rss / 1e6)
                except psutil.NoSuchProcess:
                    continue


def _rows(report: Report) -> Iterator[tuple[str, str]]:
    yield "mutants, rows", f"{report.mutants}, {report.rows} (an archive object has one for each file in it)"
    yield "mutants with a row missing or too many", str(len(report.wrong))
    for reason, count in report.reasons.most_common():
        yield f"  {reason}", str(count)
    yield "longest", f"{report.longest_ms:.0f} ms"
    yield "peak memory of a decoder", f"{report.peak_child_mb:.0f} MB"
    yield "mutants whose truth is known", f"{sum(report.known.values())}, of them"
    yield "  read, and the account is true", str(report.known["true"])
    for fault in FAULTS:
        yield f"  {fault}", str(report.known[fault])
    for reason, count in report.known.most_common():
        if reason not in (*FAULTS, "true"):
            yield f"  {reason}", str(count)
    yield "time", f"{report.took_s:.0f} s, {report.mutants / max(report.took_s, 1e-9):.0f} a second"


def _faults_by_encoding(report: Report) -> Table:
    counts = Counter((done.partition(":")[0], fault) for _, fault, done in report.faults)
    table = Table("file", *FAULTS, title="accounts that are wrong")
    for encoding in sorted({encoding for encoding, _ in counts}):
        table.add_row(encoding, *(str(counts[encoding, fault] or "") for fault in FAULTS))
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--keep", type=Path, help="folder for the mutants that did harm")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = run_in_processes(arguments.count, arguments.seed, Path(folder), arguments.processes, arguments.keep)
    table = Table(title=f"fuzzing the load stage, seed {arguments.seed}", show_header=False)
    for name, value in _rows(report):
        table.add_row(name, value)
    console = Console(width=150)
    console.print(table)
    if report.faults:
        console.print(_faults_by_encoding(report))
    for number, reason, detail in report.bad[:20] + report.faults[:40]:
        console.print(f"mutant {number}: {reason}: {detail}", highlight=False)
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
