"""Kills real runs at random moments, starts them again until all is done, and counts what is lost or there twice.

python -m tests.chaos --seed 1 --kills 210 --store all --out chaos.json

The driver is stopped by SIGTERM and by Ctrl-C too. Killed by SIGKILL are the driver with all that it started, workers of load
and finish, actors of emit and decode, decoders in their sandbox, runners, and whole simulated nodes of a cluster. Each cycle
has a new lake, and a reader that looks at it all the while.
Exit code 0 if nothing was lost, duplicated or seen that should not be, and as much was killed as asked.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
from rich.console import Console
from rich.table import Table

from jobs.benchmarks.__main__ import write_result
from tests.chaos_archive import write_archive
from tests.chaos_cycle import Cycle, CycleReport
from tests.emulators import run_gcs, run_s3
from tests.models import save_random_lasr

STORES = ("local", "gcs", "s3")
WEIGHTS = {
    "driver": 0.13,
    "terminate": 0.07,
    "interrupt": 0.07,
    "worker": 0.18,
    "actor": 0.15,
    "node": 0.1,
    "sandbox": 0.1,
    "runner": 0.2,
}
_MODES = {"nodes": "node", "runners": "runner"}  # what is killed in this kind of cycle alone
_WITH_OTHERS = 0.3  # share of the other kills that happen in each such kind of cycle too
RUNNERS = 3
_KILLS_A_CYCLE = 16
_MOST_SENTENCES = 20  # on one cycle
_MOST_IDLE_CYCLES = 3  # in a row, in which nothing could be killed
# Small blocks and a commit for each: many moments to be killed at. Little memory, so that a simulated node has room.
_SETTINGS: dict[str, dict[str, Any]] = {
    "acoustic": {"device": "cpu"},
    "decoding": {"kind": "greedy"},
    "ray": {
        "cpus": 2,
        "block_rows": 6,
        "block_audio_s": 10.0,
        "load_memory_mb": 400.0,
        "emit_memory_mb": 500.0,
        "decode_memory_mb": 300.0,
        "finish_memory_mb": 200.0,
    },
}


@dataclass(frozen=True)
class Store:
    """Where archive and lakes are: configuration for each."""

    name: str
    archive: dict[str, Any]
    lakes: str
    lake_options: dict[str, str]


@contextmanager
def open_store(name: str, files: Path, folder: Path) -> Iterator[Store]:
    """The archive in ``files`` on a store of that name, and room for lakes."""
    if name == "local":
        yield Store(name, {"uri": str(files)}, str(folder), {})
        return
    # gcsfs asks an experimental gRPC service first, which no emulator has, and waits 60 s for it.
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    with run_gcs() if name == "gcs" else run_s3() as server:
        bucket = server.make_bucket()
        filesystem = fsspec.filesystem(server.scheme, **server.fsspec_options)
        for path in sorted(files.rglob("*.*")):
            filesystem.pipe_file(f"{bucket}/archive/{path.relative_to(files)}", path.read_bytes())
        archive = {"uri": f"{bucket}/archive", "storage_options": server.fsspec_options}
        yield Store(name, archive, server.make_bucket(), server.storage_options)


def deal(kills: int, kinds: Sequence[str], random_numbers: random.Random) -> list[str]:
    """So many kills, each kind by its weight and those that come first at least once, shuffled."""
    total = sum(WEIGHTS[kind] for kind in kinds)
    counts = {kind: int(kills * WEIGHTS[kind] / total) for kind in kinds}
    while (missing := kills - sum(counts.values())) > 0:
        neediest = sorted(kinds, key=lambda kind: (counts[kind] > 0, counts[kind] / WEIGHTS[kind]))
        for kind in neediest[:missing]:
            counts[kind] += 1
    deck = [kind for kind, count in counts.items() for _ in range(count)]
    random_numbers.shuffle(deck)
    return deck


def split(deck: Sequence[str]) -> dict[str, list[str]]:
    """Which kills happen to a usual run with its own Ray, which to one on simulated nodes, and which to one with runners: those
    of nodes and runners, and some others in each."""
    others = [kind for kind in deck if kind not in _MODES.values()]
    shared, hands = int(_WITH_OTHERS * len(others)), dict[str, list[str]]()
    for mode, kind in _MODES.items():
        if kind in deck:
            hands[mode] = others[:shared] + [one for one in deck if one == kind]
            del others[:shared]
    return {"own": others, **hands}


def run_store(store: Store, deck: list[str], model: Path, folder: Path, seed: str, console: Console) -> Iterator[CycleReport]:
    """Cycles on one store until the deck is empty; each report comes as its cycle begins, and fills."""
    random_numbers = random.Random(seed)
    wanted, done, idle, number = len(deck), 0, 0, 0
    for mode, rest in split(deck).items():
        random_numbers.shuffle(rest)
        while rest and idle < _MOST_IDLE_CYCLES:
            hand = [rest.pop() for _ in range(min(_KILLS_A_CYCLE, len(rest)))]
            number += 1
            report = CycleReport(store.name, mode)
            yield report
            place = folder / f"{store.name}-{number}"
            place.mkdir()
            tell = partial(_tell, console, report, f"{store.name:5} cycle {number}", done, wanted)
            try:
                Cycle(report, _settings(store, model, number, mode), hand, random_numbers, tell).run(place)
            except Exception as error:  # the figures of the others are worth having
                report.violations.append(f"the cycle broke off: {type(error).__name__}: {error}")
            tell(describe(report))
            rest += hand
            done += sum(report.kills.values())
            idle = 0 if report.kills else idle + 1


def _settings(store: Store, model: Path, number: int, mode: str) -> dict[str, dict[str, Any]]:
    runners = {"ray": {**_SETTINGS["ray"], "runners": RUNNERS}} if mode == "runners" else {}
    lake = {"uri": f"{store.lakes}/lake-{number}", "storage_options": store.lake_options, "commit_every_s": 0.0}
    acoustic = {**_SETTINGS["acoustic"], "model": str(model)}
    return {**_SETTINGS, "archive": store.archive, "lake": lake, "acoustic": acoustic, **runners}


def _tell(console: Console, report: CycleReport, where: str, before: int, wanted: int, sentence: str) -> None:
    count = before + sum(report.kills.values())
    line = f"{time.strftime('%H:%M:%S')} {where} run {report.runs} kill {count}/{wanted}: {sentence}"
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def describe(report: CycleReport) -> str:
    """One line on a finished cycle."""
    verdict, seen = report.verdict, report.reader
    if verdict is None:
        return report.violations[-1]
    return (
        f"cycle over after {report.took_s:.0f} s: {sum(report.kills.values())} kills, {report.runs} runs, {verdict.there} of "
        f"{verdict.expected} there, lost {verdict.lost}, duplicated {verdict.duplicated}, {seen.reads} reads, "
        f"{seen.violations} violations"
    )


def sum_up(reports: Sequence[CycleReport]) -> dict[str, Any]:
    """The figures of some cycles."""
    verdicts = [report.verdict for report in reports if report.verdict is not None]
    kills = sum((report.kills for report in reports), Counter())
    return {
        "kills": sum(kills.values()),
        **{f"{kind} kills": kills[kind] for kind in WEIGHTS},
        "cycles": len(reports),
        "cycles on simulated nodes": sum(report.mode == "nodes" for report in reports),
        "cycles with runners": sum(report.mode == "runners" for report in reports),
        "runs started": sum(report.runs for report in reports),
        "runs that failed by themselves": sum(len(report.failures) for report in reports),
        "recordings expected": sum(verdict.expected for verdict in verdicts),
        "recordings there": sum(verdict.there for verdict in verdicts),
        "lost": sum(verdict.lost for verdict in verdicts),
        "duplicated": sum(verdict.duplicated for verdict in verdicts),
        "given up after crashes": sum(verdict.crashed for verdict in verdicts),
        "wrong": sum(len(verdict.wrong) for verdict in verdicts),
        "reader: reads": sum(report.reader.reads for report in reports),
        "reader: reads with more rows than before": sum(report.reader.different for report in reports),
        "reader: violations": sum(report.reader.violations for report in reports),
        "violations in all": sum(len(report.violations) for report in reports),
        "minutes": round(sum(report.took_s for report in reports) / 60, 1),
    }


def passed(reports: Sequence[CycleReport], kills: int) -> bool:
    """Whether as much was killed as asked, and all else is as it should be."""
    figures = sum_up(reports)
    bad = ("lost", "duplicated", "wrong", "reader: violations", "violations in all")
    looked = all(report.verdict is not None and report.reader.different for report in reports)
    return looked and figures["kills"] >= kills and not any(figures[name] for name in bad)


def show(reports: Sequence[CycleReport], seed: int, console: Console) -> None:
    stores = list(dict.fromkeys(report.store for report in reports))
    columns = [sum_up([report for report in reports if report.store == store]) for store in stores]
    columns.append(sum_up(reports))
    table = Table("", *stores, "all", title=f"killed and resumed, seed {seed}")
    for name in columns[0]:
        table.add_row(name, *(str(figures[name]) for figures in columns))
    console.print(table)
    for report in reports:
        wrong = report.verdict.wrong if report.verdict else ()
        told = Counter([*report.violations, *wrong, *(f"(allowed) a run failed: {failure}" for failure in report.failures)])
        for sentence, times in list(told.items())[:_MOST_SENTENCES]:
            console.print(f"{report.store}, {report.mode}: {sentence} ({times} times)", highlight=False, markup=False)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=210, help="on all stores together")
    parser.add_argument("--store", choices=[*STORES, "all"], default="all")
    parser.add_argument("--recordings", type=int, default=200)
    parser.add_argument("--kinds", default=",".join(WEIGHTS), help="what is killed")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args(argv)
    kinds = options.kinds.split(",")
    stores = STORES if options.store == "all" else (options.store,)
    for stop in (signal.SIGINT, signal.SIGTERM):  # either way what was started is ended
        signal.signal(stop, signal.default_int_handler)
    console = Console()
    reports: list[CycleReport] = []
    try:
        with tempfile.TemporaryDirectory(prefix="chaos-") as name:
            folder = Path(name)
            model = save_random_lasr(folder / "model")
            files = write_archive(folder / "archive", options.recordings)
            for number, store_name in enumerate(stores):
                seed = f"{options.seed}-{store_name}"
                share = options.kills // len(stores) + (number < options.kills % len(stores))
                with open_store(store_name, files, folder) as store:
                    deck = deal(share, kinds, random.Random(seed))
                    for report in run_store(store, deck, model, folder, seed, console):
                        reports.append(report)  # noqa: PERF402 - what is there stays when this is stopped
    except KeyboardInterrupt:
        console.print("stopped")
    show(reports, options.seed, console)
    asked = {"seed": options.seed, "asked": options.kills, "recordings": options.recordings}
    write_result({"benchmark": "chaos", **asked, **to_json(reports)}, options.out)
    return 0 if passed(reports, options.kills) else 1


def to_json(reports: Sequence[CycleReport]) -> dict[str, Any]:
    """All of it, by store, and each cycle."""
    stores = dict.fromkeys(report.store for report in reports)
    return {
        "all": sum_up(reports),
        "stores": {store: sum_up([report for report in reports if report.store == store]) for store in stores},
        "cycles": [
            vars(report) | {"verdict": report.verdict and vars(report.verdict), "reader": vars(report.reader)}
            for report in reports
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
