"""Kills `dictalake extract` again and again, with all its processes, and counts what is in the lake at the end.

    python -m tests.extract_chaos --kills 10 --transcripts 200 --out infra/benchmarks/extract_chaos.json

A model server that answers by rules counts how far a run came; it is killed at a random answer. At last it may finish. Then two
extractions of another lake run at once. In both each transcript must have one row, and each of its items once.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dictalake.config.sections import Lake
from dictalake.lake.query import connect
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from tests.chaos_victims import kill_family
from tests.lake_rows import make_row
from tests.model_server import ModelServer, serving

ROOT = Path(__file__).parents[1]


def make_lake(folder: Path, transcripts: int) -> str:
    """Transcripts of two sentences, in which the drug's dose tells them apart."""
    lake = Lake.model_validate({"uri": str(folder)})
    rows = []
    for number in range(transcripts):
        text = f"No acute fracture. She takes aspirin {number + 10} mg daily."
        spoken = text.lower().replace(".", " {period}").split()
        words = [
            {"word": word, "start_s": float(place), "end_s": place + 0.5, "confidence": 0.9, "channel": 0}
            for place, word in enumerate(spoken)
        ]
        rows.append(make_row(f"r{number:05}", text=text, words=words))
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))
    return str(lake.uri)


def start(lake: str, address: str, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dictalake", "extract", lake, "--config", "extract-openai", "--extract.server", address]
    command += ["--extract.block_rows", "4", "--extract.concurrency", "4", "--lake.commit_every_s", "0.5", "--ray.cpus", "2"]
    with log.open("ab") as output:
        return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)


def count(lake: str) -> dict[str, Any]:
    """Rows, recordings and items of a lake, and what there is twice."""
    with connect(lake) as database:
        [(rows, recordings, failed)] = database.sql(
            "SELECT count(*), count(DISTINCT recording_id), count(*) FILTER (status <> 'ok') FROM finding_rows"
        ).fetchall()
        [(doses, distinct)] = database.sql("SELECT count(*), count(DISTINCT dose) FROM medications").fetchall()
        [(runs,)] = database.sql("SELECT count(DISTINCT run_id) FROM finding_rows").fetchall()
    counts = {"rows": rows, "recordings": recordings, "failed": failed, "medications": doses, "distinct_doses": distinct}
    return {**counts, "runs_with_rows": runs}


def is_once(counts: dict[str, Any], transcripts: int) -> bool:
    names = ("rows", "recordings", "medications", "distinct_doses")
    return all(counts[name] == transcripts for name in names) and counts["failed"] == 0


def kill_and_resume(folder: Path, kills: int, transcripts: int, dice: random.Random) -> dict[str, Any]:
    lake, server = make_lake(folder / "kills", transcripts), ModelServer(delay_s=0.5)
    log, processes, at_kill = folder / "kills.log", 0, []
    with serving(server.app) as address:
        for _ in range(kills):
            wanted = server.requests + 1 + dice.randrange(2, max(3, transcripts // kills))
            process = start(lake, address, log)
            while server.requests < wanted and process.poll() is None:
                time.sleep(0.02)
            processes += kill_family(process.pid)
            process.wait()
            at_kill.append(count(lake)["rows"])
            print(f"killed with {at_kill[-1]} rows committed", flush=True)
        code = start(lake, address, log).wait()
    counts = count(lake)
    asked = server.requests
    return {"kills": kills, "processes_killed": processes, "rows_at_kills": at_kill, "exit": code, "requests": asked, **counts}


def run_two(folder: Path, transcripts: int) -> dict[str, Any]:
    lake, server = make_lake(folder / "two", transcripts), ModelServer(delay_s=0.5)
    with serving(server.app) as address:
        both = [start(lake, address, folder / f"two-{number}.log") for number in range(2)]
        codes = [process.wait() for process in both]
    return {"exits": codes, "requests": server.requests, **count(lake)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--transcripts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="extract-chaos-") as name:
        killed = kill_and_resume(Path(name), arguments.kills, arguments.transcripts, random.Random(arguments.seed))
        print(json.dumps(killed), flush=True)
        together = run_two(Path(name), arguments.transcripts)
        print(json.dumps(together), flush=True)
    found = {"transcripts": arguments.transcripts, "seed": arguments.seed, "killed": killed, "two_at_once": together}
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    good = is_once(killed, arguments.transcripts) and is_once(together, arguments.transcripts)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
