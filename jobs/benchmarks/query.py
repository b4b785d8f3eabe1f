"""Times the queries of ``infra/queries`` and a count of each view, over a lake of synthetic rows.

    python -m jobs.benchmarks query --out query-bench --rows 1000000

Rows have every column of a real lake: texts of about 80 words with their times, sections, specialties, devices, and dates over
five years, one file a month. One recording in ten was transcribed again by a second model, and one in fifty failed. Each query
runs in a new process of ``dictalake query``. The seconds are from its start to its end, and the memory is its peak.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from dictalake.config.locations import PACKAGE
from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.query import VIEWS
from dictalake.lake.runs import RunLog, RunRecord
from dictalake.lake.schema import TRANSCRIPTS, make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.superseded import refresh_superseded
from dictalake.lake.table import TranscriptTable
from dictalake.training.dictation import Corpus, Dictation, write_dictations
from dictalake.transcript.formatting import format_text
from jobs.benchmarks.__main__ import write_result

QUERIES = PACKAGE.parents[1] / "infra" / "queries"
OLD, NEW = "3f0c9a12b7de", "7be1d0a94c52"
MONTHS, FIRST_YEAR = 60, 2021
_POOL, _BLOCK = 2_000, 50_000
_DEVICES = ("LFH 5274", "DS-9500", "SpeechMike III", None)
_REPEATED, _FAILED = 10, 50  # one recording in this many
_SAID_TOGETHER = 4
# A child's ru_maxrss starts at that of its parent; the kernel's VmHWM of the new process does not.
_AND_ITS_PEAK = """
import sys
from dictalake.cli.main import main
code = main(sys.argv[1:])
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
sys.exit(code)
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks query", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3, help="runs of each query; the median is shown")
    parser.add_argument("--out", type=Path, required=True, help="folder for query.json")
    parser.add_argument("--lake", type=Path, help="keep the synthetic lake here, or use the one that is there")
    options = parser.parse_args(argv)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="dictalake-bench-") as folder:
        lake = options.lake or Path(folder) / "lake"
        started = time.perf_counter()
        made_s = None
        if not lake.exists():
            make_lake(lake, options.rows)
            made_s = round(time.perf_counter() - started, 1)
        size = sum(path.stat().st_size for path in lake.rglob("*.parquet"))
        console.print(f"{options.rows:,} rows, {size / 1e9:.2f} GB", highlight=False)
        results = [ask(name, sql, lake, Path(folder), options.runs) for name, sql in list_questions()]
    show(results, options.rows, console)
    result = {"bench": "query", "rows": options.rows, "lake_bytes": size, "made_s": made_s, "questions": results}
    write_result(result, options.out / "query.json")
    return 0


def list_questions() -> Iterator[tuple[str, str]]:
    """The name and SQL of each query: a count of each view, one month of a view, and the files."""
    for view in VIEWS:
        yield f"count of {view}", f"SELECT count(*) FROM {view}"
    yield (
        "one month of transcripts",
        f"SELECT count(*), avg(confidence) FROM transcripts WHERE recorded_month = '{FIRST_YEAR}-07'",
    )
    for path in sorted(QUERIES.glob("*.sql")):
        yield path.stem, path.read_text(encoding="utf-8")


def ask(name: str, sql: str, lake: Path, folder: Path, runs: int) -> dict[str, Any]:
    """The median seconds and the greatest peak memory of ``runs`` processes, and the number of rows in the answer."""
    out = folder / "answer.parquet"
    seconds, peaks_mb = [], []
    command = [sys.executable, "-c", _AND_ITS_PEAK, "query", "--lake.uri", str(lake), "--out", str(out), sql]
    for _ in range(runs):
        started = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        seconds.append(time.perf_counter() - started)
        if done.returncode:
            raise RunError(f"the question {name} ended with exit code {done.returncode}")
        peaks_mb.append(int(done.stdout.split()[-1]) / 1024)
    rows = pq.ParquetFile(out).metadata.num_rows
    return {"question": name, "seconds": round(statistics.median(seconds), 2), "peak_mb": round(max(peaks_mb)), "rows": rows}


def show(results: Sequence[dict[str, Any]], rows: int, console: Console) -> None:
    table = Table("question", title=f"{rows:,} rows")
    for name in ("seconds", "peak MB", "rows of the answer"):
        table.add_column(name, justify="right")
    for one in results:
        table.add_row(one["question"], f"{one['seconds']:.2f}", f"{one['peak_mb']:,}", f"{one['rows']:,}")
    console.print(table)


def make_lake(folder: Path, rows: int) -> None:
    """Writes ``rows`` rows, one file for each month and fingerprint, or several of 50,000 rows."""
    lake = Lake.model_validate({"uri": str(folder)})
    table, pool, rng = TranscriptTable(lake), make_pool(), np.random.default_rng(0)
    table.committed(NEW)
    recordings = rows * _REPEATED // (_REPEATED + 1)
    repeated = rows - recordings
    for month, share in enumerate(split(recordings, MONTHS)):
        again = split(repeated, MONTHS)[month]
        for start in range(0, share, _BLOCK):
            count = min(_BLOCK, share - start)
            block = make_block(pool, rng, month, count)
            table.commit(write_staged(block, lake))
            if start == 0:
                table.commit(write_staged(transcribe_before(block.slice(0, min(again, count)), pool, rng), lake))
    RunLog(lake).append(*make_runs(recordings // MONTHS))
    refresh_superseded(lake)  # as a run does at its end


def split(total: int, parts: int) -> list[int]:
    """``parts`` whole numbers that differ by at most one and add up to ``total``."""
    return [total // parts + (part < total % parts) for part in range(parts)]


def make_pool() -> pa.Table:
    """Dictations to draw from, with schema TRANSCRIPTS; their ids and times are set later."""
    rng = random.Random(0)
    texts = write_dictations(Corpus.load(), 0, _SAID_TOGETHER * _POOL, held_out=False)
    return make_transcripts([make_dictation(list(islice(texts, _SAID_TOGETHER)), rng) for _ in range(_POOL)])


def make_dictation(said: Sequence[Dictation], rng: random.Random) -> dict[str, Any]:
    text_raw = " ".join(one.text for one in said)
    formatted, start_s = format_text(text_raw), 0.4
    words: list[dict[str, Any]] = []
    for word in text_raw.split():
        length_s = 0.08 + 0.05 * len(word) * rng.random()
        times = {"start_s": put_on_grid(start_s), "end_s": put_on_grid(start_s + length_s)}
        words.append({"word": word, **times, "confidence": round(1 - 0.4 * rng.random() ** 3, 3), "channel": 0})
        start_s += length_s + 0.1 * rng.random()
    confidence = statistics.fmean(word["confidence"] for word in words)
    device = rng.choice(_DEVICES)
    return {
        "recording_id": "",
        "status": "ok",
        "run_id": "",
        "attempt": 0,
        "text": formatted.text,
        "text_raw": text_raw,
        "sections": [{**vars(section), "heading": section.heading or None} for section in formatted.sections],
        "words": words,
        "confidence": round(confidence - 0.2 * (rng.random() < 0.1), 3),
        "quality": {"duration_s": start_s + 1, "speech_s": start_s, "uncovered_speech_s": 8 * rng.random() ** 6},
        "source": {"container": "wav", "codec": "pcm_s16le", "sample_rate_hz": 16_000, "channels": 1, "bits_per_sample": 16},
        "metadata": [("specialty", said[0].specialty), *([("device", device)] if device else [])],
        "provenance": {"model_id": "google/medasr", "model_sha256": "a" * 64, "lm_sha256": "b" * 64, "decoder": "beam"},
        "timings": {"load_ms": 40.0, "emit_ms": 20.0, "decode_ms": 15.0},
        "fingerprint": NEW,
        "recorded_month": "unknown",
    }


def put_on_grid(time_s: float) -> float:
    """The nearest time at which a frame of LASR begins or ends, as rows have it."""
    return round(0.0525 + 0.04 * max(0, round((time_s - 0.0525) / 0.04)), 4)


def make_block(pool: pa.Table, rng: np.random.Generator, month: int, count: int) -> pa.Table:
    """``count`` recordings of one month; one in fifty failed."""
    year, month_of_year = FIRST_YEAR + month // 12, month % 12 + 1
    first = datetime(year, month_of_year, 1, 7, tzinfo=UTC)
    recorded = pc.add(pa.scalar(first), pa.array(rng.integers(0, 27 * 86_400, count), pa.int64()).cast(pa.duration("s")))
    recorded = recorded.cast(pa.timestamp("us", tz="UTC"))
    waited = pa.array(rng.gamma(2.0, 3 * 3600, count).astype(np.int64), pa.int64()).cast(pa.duration("s"))
    ids = pa.array([rng.bytes(16).hex() for _ in range(count)])
    numbers = pa.array(rng.integers(0, 19 * count // 20 + 1, count)).cast(pa.string())
    studies = pc.binary_join_element_wise(f"1.2.840.{month}", numbers, ".")
    block = pool.take(pa.array(rng.integers(0, pool.num_rows, count))).combine_chunks()
    block = put(block, "recording_id", ids)
    block = put(block, "recorded_month", pa.repeat(f"{year}-{month_of_year:02}", count))
    block = put(block, "run_id", pa.repeat(f"run-{year}-{month_of_year:02}", count))
    uris = pc.binary_join_element_wise("gs://archive", ids, "/")
    block = put(block, "source", replace_fields(block["source"], uri=uris, modified_at=recorded, version=pa.repeat("1", count)))
    block = put(block, "dicom", replace_fields(block["dicom"], content_datetime=recorded, study_instance_uid=studies))
    made = replace_fields(block["provenance"], transcribed_at=pc.add(recorded, waited), fingerprint=block["fingerprint"])
    return fail_some(put(block, "provenance", made), rng)


def fail_some(block: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Makes some rows failed ones, with an error and without a transcript."""
    good = pa.array(rng.integers(0, _FAILED, block.num_rows) > 0)
    error = {"stage": "load", "reason": "corrupt_audio", "detail": "nothing can be decoded", "retryable": False}
    errors = pa.array([error], TRANSCRIPTS.field("error").type).take(pa.array(np.zeros(block.num_rows, np.int64)))
    block = put(block, "status", pc.if_else(good, "ok", "failed"))
    block = put(block, "error", pc.if_else(good, pa.nulls(block.num_rows, errors.type), errors))
    for name in ("text", "text_raw", "confidence"):
        block = put(block, name, pc.if_else(good, block[name], pa.nulls(block.num_rows, block[name].type)))
    nothing = block.take(pa.nulls(1, pa.int64()))
    picked = pa.array(np.where(np.asarray(good), np.arange(block.num_rows), block.num_rows))
    for name in ("words", "sections"):
        block = put(block, name, pa.concat_tables([block.select([name]), nothing.select([name])])[name].take(picked))
    return block


def transcribe_before(block: pa.Table, pool: pa.Table, rng: np.random.Generator) -> pa.Table:
    """The rows of an older model for the same recordings, a day earlier; every tenth has another text."""
    older = pc.subtract(pc.struct_field(block["provenance"], "transcribed_at"), pa.scalar(timedelta(days=1)))
    block = put(block, "provenance", replace_fields(block["provenance"], transcribed_at=older))
    changed = pa.array(rng.integers(0, 10, block.num_rows) == 0)
    other = pool["text_raw"].take(pa.array(rng.integers(0, pool.num_rows, block.num_rows)))
    block = put(block, "text_raw", pc.if_else(pc.and_(changed, pc.is_valid(block["text_raw"])), other, block["text_raw"]))
    return put(block, "fingerprint", pa.repeat(OLD, block.num_rows))


def put(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def replace_fields(structs: pa.ChunkedArray, **values: Any) -> pa.Array:
    """A struct column with some fields replaced; no value is null."""
    kind = structs.type
    fields = [values.get(field.name, pc.struct_field(structs, field.name)) for field in kind]
    plain = [one.combine_chunks() if isinstance(one, pa.ChunkedArray) else one for one in fields]
    return pa.StructArray.from_arrays([a.cast(f.type) for a, f in zip(plain, kind, strict=True)], fields=list(kind))


def make_runs(recordings: int) -> list[RunRecord]:
    """A start and an end for each month."""
    records = []
    for month in range(MONTHS):
        year, month_of_year = FIRST_YEAR + month // 12, month % 12 + 1
        at, run_id = datetime(year, month_of_year, 28, 22, tzinfo=UTC), f"run-{year}-{month_of_year:02}"
        records.append(RunRecord(run_id=run_id, event="started", job="nightly", at=at, recordings=recordings, cpus=16.0))
        records.append(
            RunRecord(
                run_id=run_id,
                event="finished",
                job="nightly",
                at=at + timedelta(hours=2),
                fingerprint=NEW,
                ok=recordings,
                failed=recordings // _FAILED,
                audio_hours=recordings / 120,
                wall_s=7200.0,
                speed=recordings / 240,
                failures={"corrupt_audio (load)": recordings // _FAILED},
            )
        )
    return records


if __name__ == "__main__":
    sys.exit(main())
