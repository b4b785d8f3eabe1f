"""Reads the numbers of a report from the lake with SQL, and writes the report of a run into it, ``reports/<run_id>.html``.

DuckDB counts the rows: a lake of any size gives a few numbers and twenty recordings. What does not fit into memory is spilled
to disk.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from dictalake.config.sections import Config, Lake
from dictalake.errors import ConfigError
from dictalake.lake.erasers import clear_reports
from dictalake.lake.query import connect, lock
from dictalake.lake.reports import Reports
from dictalake.reporting.model import (
    Attempt,
    Bar,
    Counts,
    Failure,
    Incomplete,
    Part,
    Price,
    ProvenanceGroup,
    Recording,
    Report,
    Run,
    Slice,
    Stage,
)

_MEMORY = "400MB"
_WORST = 10
_RUNS = 20
_PROVENANCES = 10
_MOST_SLICES = 48
_WORDS_SHOWN = 12
_DURATIONS_S = (0.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_CONFIDENCES = 20
# Widths of a slice: a minute, five, a quarter of an hour, an hour, six hours, a day, a week, four weeks, a quarter of a year.
_WIDTHS_S = (60, 300, 900, 3600, 21_600, 86_400, 604_800, 2_419_200, 7_862_400)
_LEFT_OUT = ("archive", "lake", "lineage", "logs", "metrics", "report")  # sections that name places
_STAGES = ("load", "emit", "decode")

_COLUMNS = """
    recording_id, fingerprint, run_id, status, attempt, confidence,
    quality.duration_s AS duration_s, quality.speech_s AS speech_s, quality.uncovered_speech_s AS uncovered_s,
    quality.lost_s AS lost_s, quality.repairs AS repairs,
    coalesce(timings.load_ms, 0) / 1000 AS load_s, coalesce(timings.emit_ms, 0) / 1000 AS emit_s,
    coalesce(timings.decode_ms, 0) / 1000 AS decode_s,
    error.reason AS reason, error.stage AS stage, coalesce(error.retryable, false) AS retryable,
    provenance.transcribed_at AS made_at
"""
_READ = ("transcripts", "failures", "recordings", "incomplete", "runs")
# ``seen``: every row; ``good``: transcribed rows; ``bad``: failed rows. Each narrow table takes one pass over the lake.
_OF_RUN = {
    "seen": f"""
        SELECT {_COLUMNS} FROM transcript_rows
        WHERE run_id = getvariable('run') AND fingerprint = getvariable('fingerprint')
    """,
    "good": "SELECT * FROM seen WHERE status = 'ok'",
    "bad": "SELECT * FROM seen WHERE status = 'failed'",
}
_OF_LAKE = {
    "seen": f"SELECT {_COLUMNS} FROM transcript_rows",
    "good": f"SELECT {_COLUMNS} FROM transcripts",
    # Of each current recording without a transcript the failure that counts.
    "bad": f"""
        SELECT {_COLUMNS} FROM failures
        SEMI JOIN (FROM recordings WHERE status = 'failed') USING (recording_id, fingerprint, attempt)
    """,
}
_FAILURES = """
    SELECT coalesce(reason, 'unknown') AS reason, coalesce(stage, 'unknown') AS stage, count(*) AS count,
        bool_or(retryable) AS retryable
    FROM bad GROUP BY ALL ORDER BY count DESC, reason, stage
"""
_ATTEMPTS = """
    SELECT attempt AS number, count(*) FILTER (status = 'ok') AS ok, count(*) FILTER (status = 'failed') AS failed
    FROM seen GROUP BY ALL ORDER BY ALL
"""
_TEXTS = """
    SELECT recording_id, fingerprint, attempt, text FROM transcript_rows
    WHERE status = 'ok' AND recording_id IN (SELECT unnest(?))
"""


def write_report(config: Config, run_id: str) -> str:
    """Writes the report of a run into its lake; returns its path below the lake. Raises ConfigError, RunError, OSError."""
    from dictalake.reporting.page import (
        render_report,
    )  # matplotlib: a run with nothing to do need not wait for it

    page = render_report(read_report(config.lake, read_price(config), run_id))
    path = Reports(config.lake).write(run_id, page)
    clear_reports(config.lake, run_id)  # recordings that were erased after the rows were read
    return path


def read_price(config: Config) -> Price | None:
    price = config.report.price_per_hour
    return None if price is None else Price(price, config.report.currency)


def read_report(lake: Lake, price: Price | None = None, run_id: str | None = None, *, with_text: bool = False) -> Report:
    """The data of a report on one run, or on the last run that wrote rows and on the whole lake.

    Raises ConfigError for a run that the lake does not know, and RunError if the lake cannot be read.
    """
    later: list[Run] = []
    with (
        connect(lake.uri or "", lake.storage_options, names=_READ) as database,
        TemporaryDirectory(prefix="dictalake-report-") as spill,
    ):
        database.execute(f"SET memory_limit = '{_MEMORY}'")
        lock(database, Path(spill))
        runs = _read_runs(database)
        if run_id is None:
            at_work = [index for index, run in enumerate(runs) if _wrote_rows(database, run)][:1]
            later = runs[: at_work[0]] if at_work else runs
            parts = [_read_part(database, runs[index], with_text=with_text) for index in at_work]
            whole = _read_part(database, None, with_text=with_text)
            parts.append(replace(whole, runs=runs[:_RUNS], more_runs=max(0, len(runs) - _RUNS)))
        else:
            found = [run for run in runs if run.run_id == run_id]
            if not found:
                newest = ", ".join(run.run_id for run in runs[:5]) or "none"
                raise ConfigError(f"--run {run_id}: the lake has no such run; the newest are {newest}")
            parts = [_read_part(database, found[0], with_text=with_text)]
    return Report(parts, datetime.now(UTC), version("dictalake"), price, with_text, later)


def _read_runs(database: duckdb.DuckDBPyConnection) -> list[Run]:
    """All runs, the newest first."""
    names = "run_id, state, job, host, started_at, ended_at, fingerprint, recordings AS wanted, skipped, claimed, retried, ok, "
    names += "failed, audio_hours, wall_s, speed, cpus, gpus, storage_retries"
    rows = _ask(database, f"SELECT {names}, config FROM runs ORDER BY started_at DESC NULLS LAST, run_id DESC")
    return [Run(**{key: value for key, value in row.items() if key != "config"}, settings=_settings(row)) for row in rows]


def _settings(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Keys that differ from their defaults, without the sections that name places of the archive and the lake."""
    try:
        document = json.loads(row["config"] or "{}")
    except ValueError:  # "erased"
        return []
    defaults = Config().model_dump(mode="json")
    changed = []
    for section in sorted(set(document) - set(_LEFT_OUT)):
        for key, value in document[section].items():
            if value != defaults.get(section, {}).get(key):
                changed.append((f"{section}.{key}", value if isinstance(value, str) else json.dumps(value)))
    return changed


def _wrote_rows(database: duckdb.DuckDBPyConnection, run: Run) -> bool:
    """Whether the run wrote rows. A killed run has recorded no counts, so its rows are searched for."""
    if run.ok is not None:
        return bool(run.ok + (run.failed or 0))
    query = "SELECT 1 FROM transcript_rows WHERE run_id = ? AND fingerprint = ? LIMIT 1"
    return bool(database.execute(query, [run.run_id, run.fingerprint]).fetchall())


def _read_part(database: duckdb.DuckDBPyConnection, run: Run | None, *, with_text: bool) -> Part:
    if run is not None:
        database.execute("SET VARIABLE run = ?", [run.run_id])
        database.execute("SET VARIABLE fingerprint = ?", [run.fingerprint])
    for name, query in (_OF_LAKE if run is None else _OF_RUN).items():
        database.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")
    counts = _read_counts(database, run)
    return Part(
        run=run,
        counts=counts,
        slices=_read_slices(database, run, counts),
        confidences=_read_confidences(database),
        durations=_read_durations(database),
        failures=[Failure(**row) for row in _ask(database, _FAILURES)],
        stages=_read_stages(database),
        attempts=[Attempt(**row) for row in _ask(database, _ATTEMPTS)],
        slowest=_read_worst(database, "load_s + emit_s + decode_s", with_text=False),
        incomplete=_read_incomplete(database, run),
        least_covered=_read_worst(database, "uncovered_s", with_text=with_text),
        provenances=_read_provenances(database, run),
    )


def _name_incomplete(run: Run | None) -> str:
    """What tells of loss: of a run its rows, of the lake also what was rechecked."""
    return "incomplete" if run is None else "(SELECT * FROM good WHERE lost_s > 0)"


def _read_incomplete(database: duckdb.DuckDBPyConnection, run: Run | None) -> list[Incomplete]:
    query = f"SELECT recording_id, lost_s, duration_s, repairs FROM {_name_incomplete(run)}"
    rows = _ask(database, f"{query} ORDER BY lost_s DESC NULLS FIRST, recording_id LIMIT ?", [_WORST])
    return [Incomplete(**row | {"repairs": row["repairs"] or ()}) for row in rows]


def _read_counts(database: duckdb.DuckDBPyConnection, run: Run | None) -> Counts:
    [row] = _ask(
        database,
        f"""
        SELECT count(*) AS ok, (SELECT count(*) FROM bad) AS failed,
            coalesce(sum(duration_s), 0.0) + (SELECT coalesce(sum(duration_s), 0.0) FROM bad) AS audio_s,
            coalesce(sum(speech_s), 0.0) AS speech_s, coalesce(sum(uncovered_s), 0.0) AS uncovered_s,
            count(*) FILTER (uncovered_s > 0) AS uncovered, (SELECT count(*) FROM {_name_incomplete(run)}) AS incomplete,
            (SELECT coalesce(sum(lost_s), 0.0) FROM {_name_incomplete(run)}) AS lost_s, avg(confidence)::DOUBLE AS confidence,
            (SELECT min(made_at) FROM seen) AS first_at, (SELECT max(made_at) FROM seen) AS last_at
        FROM good
        """,
    )
    return Counts(**row)


@dataclass(frozen=True)
class _Axis:
    """Consecutive intervals of the same width, from ``start``."""

    start: datetime
    width_s: float
    count: int


def _plan_axis(run: Run | None, first: datetime, last: datetime) -> _Axis:
    """Cuts a run into equal intervals of at least a second, and the lake into minutes, hours, days or weeks."""
    if run is not None and run.started_at is not None:
        start = min(run.started_at, first)
        span_s = max(1.0, (max(last, run.ended_at or last) - start).total_seconds())
        count = max(1, min(_MOST_SLICES, int(span_s)))
        return _Axis(start, span_s / count, count)
    span_s = (last - first).total_seconds()
    width_s = next((width for width in _WIDTHS_S if span_s / width < _MOST_SLICES), _WIDTHS_S[-1])
    start = datetime.fromtimestamp(first.timestamp() // width_s * width_s, UTC)
    return _Axis(start, width_s, int((last - start).total_seconds() // width_s) + 1)


def _read_slices(database: duckdb.DuckDBPyConnection, run: Run | None, counts: Counts) -> list[Slice]:
    if counts.first_at is None or counts.last_at is None:
        return []
    axis = _plan_axis(run, counts.first_at, counts.last_at)
    rows = database.execute(
        """
        SELECT least(greatest(floor((epoch(made_at) - $start) / $width), 0), $count - 1)::INT AS place,
            coalesce(sum(duration_s), 0.0), count(*) FILTER (status = 'ok'), count(*) FILTER (status = 'failed')
        FROM seen WHERE made_at IS NOT NULL GROUP BY place
        """,
        {"start": axis.start.timestamp(), "width": axis.width_s, "count": axis.count},
    ).fetchall()
    found = {place: rest for place, *rest in rows}
    return [
        Slice(axis.start + timedelta(seconds=place * axis.width_s), axis.width_s, *found.get(place, (0.0, 0, 0)))
        for place in range(axis.count)
    ]


def _read_confidences(database: duckdb.DuckDBPyConnection) -> list[Bar]:
    query = "SELECT least(floor(confidence * ?), ? - 1)::INT, count(*) FROM good WHERE confidence IS NOT NULL GROUP BY ALL"
    found = dict(database.execute(query, [_CONFIDENCES, _CONFIDENCES]).fetchall())
    return [Bar(i / _CONFIDENCES, (i + 1) / _CONFIDENCES, found.get(i, 0)) for i in range(_CONFIDENCES)]


def _read_durations(database: duckdb.DuckDBPyConnection) -> list[Bar]:
    """``bars`` without the empty ones at the end."""
    query = "SELECT len(list_filter(?, lambda edge: edge <= duration_s)), count(*) FROM good WHERE duration_s >= 0 GROUP BY ALL"
    found = dict(database.execute(query, [list(_DURATIONS_S)]).fetchall())
    last = max(found, default=0)
    ends: Sequence[float | None] = [*_DURATIONS_S[1:], None]
    return [Bar(_DURATIONS_S[i], ends[i], found.get(i + 1, 0)) for i in range(last)]


def _read_stages(database: duckdb.DuckDBPyConnection) -> list[Stage]:
    """The times of all rows, including those that failed in a later stage."""
    columns = ", ".join(
        f"coalesce(sum({stage}_s), 0.0) AS {stage}_total, "
        f"coalesce(quantile_cont({stage}_s, [0.5, 0.95]) FILTER (status = 'ok'), [0.0, 0.0]) AS {stage}_of_one"
        for stage in _STAGES
    )
    [row] = _ask(database, f"SELECT coalesce(sum(duration_s), 0.0) AS audio_s, {columns} FROM seen")
    stages = []
    for name in _STAGES:
        median_s, p95_s = row[f"{name}_of_one"]
        stages.append(Stage(name, row[f"{name}_total"], median_s, p95_s, row["audio_s"]))
    return stages


def _read_worst(database: duckdb.DuckDBPyConnection, measure: str, *, with_text: bool) -> list[Recording]:
    names = "recording_id, duration_s, speech_s, uncovered_s, confidence, load_s, emit_s, decode_s"
    query = f"SELECT {names}, fingerprint, attempt FROM good WHERE {measure} > 0 ORDER BY {measure} DESC, recording_id LIMIT ?"
    rows = _ask(database, query, [_WORST])
    recordings = [Recording(**{key: row[key] for key in names.split(", ")}) for row in rows]
    if not with_text or not rows:
        return recordings
    texts = database.execute(_TEXTS, [[row["recording_id"] for row in rows]]).fetchall()
    by_row = {tuple(key): " ".join((text or "").split()[:_WORDS_SHOWN]) for *key, text in texts}
    keys = [(row["recording_id"], row["fingerprint"], row["attempt"]) for row in rows]
    return [replace(one, words=by_row.get(key)) for one, key in zip(recordings, keys, strict=True)]


def _read_provenances(database: duckdb.DuckDBPyConnection, run: Run | None) -> list[ProvenanceGroup]:
    """The rows grouped by their provenance, the largest group first."""
    names = "model_id, model_revision, model_sha256, lm_sha256, decoder, pipeline_version, git_commit"
    columns = ", ".join(f"provenance.{name} AS {name}" for name in names.split(", "))
    where = "" if run is None else "WHERE run_id = getvariable('run') AND fingerprint = getvariable('fingerprint')"
    versions = "" if run is None else ", any_value(provenance.versions) FILTER (status = 'ok') AS versions"
    rows = _ask(
        database,
        f"""
        SELECT fingerprint, {columns}, string_agg(DISTINCT provenance.device, ', ' ORDER BY provenance.device) AS device,
            count(*) AS rows{versions}
        FROM transcript_rows {where} GROUP BY ALL ORDER BY rows DESC, fingerprint LIMIT {_PROVENANCES}
        """,
    )
    return [ProvenanceGroup(**row | {"versions": sorted(row.get("versions") or ())}) for row in rows]


def _ask(database: duckdb.DuckDBPyConnection, query: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
    """The rows of ``query`` as dicts. They come through Arrow, since DuckDB's own rows need pytz for times."""
    return database.sql(query, params=list(values)).to_arrow_table().to_pylist()
