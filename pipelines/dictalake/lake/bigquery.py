"""Writes the views of ``lake/views.py`` for BigQuery, over external tables on the lake's Delta tables: ``infra/bigquery``.

What BigQuery sees of a Delta table: a map is a list of structs of ``key`` and ``value``, and a list that is null is empty.
``failures``, ``rechecks`` and those of ``bigquery_sql`` are the views of ``views`` nearly word for word. The others are put
otherwise: BigQuery
unnests in FROM, its MAX_BY does not pass over nulls, and its views have no order.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from dictalake.lake.bigquery_sql import SQL
from dictalake.lake.finding_views import BIGQUERY as FINDING_VIEWS
from dictalake.lake.places import (
    ACCESSES_FOLDER,
    CORRECTIONS_FOLDER,
    FINDINGS_FOLDER,
    FINGERPRINTS_FOLDER,
    RECHECKS_FOLDER,
    RUNS_FOLDER,
    TRANSCRIPTS_FOLDER,
)
from dictalake.lake.schema import DOC, RUNS, TRANSCRIPTS
from dictalake.lake.views import CORRECTED, RECORDINGS

DATASET = "dictalake"
EXTERNAL_TABLES = {
    "transcript_rows": TRANSCRIPTS_FOLDER,
    "run_records": RUNS_FOLDER,
    "recheck_records": RECHECKS_FOLDER,
    "fingerprint_records": FINGERPRINTS_FOLDER,
    "correction_records": CORRECTIONS_FOLDER,
    "access_records": ACCESSES_FOLDER,
    "finding_rows": FINDINGS_FOLDER,
}  # name in BigQuery → folder of the lake
_FIRST = {
    "recheck_records": ("-- Its folder is there once `dictalake recheck` has been run on the lake, whatever it finds.",),
    "fingerprint_records": ("-- Its folder is there once dictalake 0.2 has written to the lake.",),
    "correction_records": ("-- Its folder is there once somebody has corrected a transcript in `dictalake review`.",),
    "access_records": ("-- Its folder is there once somebody has opened a recording in `dictalake review`.",),
    "finding_rows": ("-- Its folder is there once `dictalake extract` has been run on the lake, whatever it finds.",),
}
_DESCRIBED = ("transcripts", "history")
_KEYS = ("recording_id", "fingerprint", "recorded_month")


def make_views() -> dict[str, str]:
    """Name → query, one for each view of ``query.VIEWS``."""
    return {
        **{name: _spell_out(name) for name in ("promotions", "superseded", "history", "corrections", "transcripts")},
        "failures": _lines(
            "-- Recordings whose last attempt under a fingerprint failed.",
            "SELECT *",
            f"FROM {_table('transcript_rows')}",
            "QUALIFY",
            "  ROW_NUMBER() OVER (PARTITION BY `recording_id`, `fingerprint` ORDER BY `attempt` DESC) = 1",
            "  AND `status` = 'failed'",
        ),
        "recordings": _spell_out("recordings"),
        "transcript_words": _unnest("words", "A row per word of transcripts; position counts from 1."),
        "transcript_sections": _unnest("sections", "A row per section of transcripts; position counts from 1."),
        "rechecks": _lines(
            "-- What `dictalake recheck` found: the newest record of each row that it compared with what can be read today.",
            "SELECT *",
            f"FROM {_table('recheck_records')}",
            "QUALIFY ROW_NUMBER() OVER (",
            "  PARTITION BY `recording_id`, `fingerprint`, `attempt` ORDER BY `loader` DESC, `at` DESC",
            ") = 1",
        ),
        "incomplete": _incomplete(),
        "runs": _runs(),
        **{name: _lines(sql.strip().format_map(_Tables())) for name, sql in FINDING_VIEWS.items()},
    }


def _spell_out(name: str) -> str:
    """A view of ``bigquery_sql`` with the names of the dataset's tables."""
    return _lines(SQL[name].strip().format_map(_Tables()))


class _Tables(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return _table(name)


def _table(name: str) -> str:
    return f"`{DATASET}`.`{name}`"


def _lines(*lines: str) -> str:
    return "\n".join(("-- Written by dictalake schema --write.", *lines)) + "\n"


def _columns(names: Iterable[str]) -> str:
    return ",\n".join(f"  {name}" for name in names)


def _unnest(column: str, what: str) -> str:
    struct = TRANSCRIPTS.field(column).type.value_type
    columns = [f"`transcript`.`{key}`" for key in _KEYS]
    columns += ["`place` + 1 AS `position`", *(f"`element`.`{struct.field(i).name}`" for i in range(struct.num_fields))]
    return _lines(
        f"-- {what}",
        "SELECT",
        _columns(columns),
        f"FROM {_table('transcripts')} AS `transcript`",
        f"CROSS JOIN UNNEST(`transcript`.`{column}`) AS `element` WITH OFFSET AS `place`",
    )


def _incomplete() -> str:
    row_or_recheck = "IF(`r`.`recording_id` IS NULL, `t`.`quality`.`{}`, `r`.`{}`) AS `{}`"
    columns = [f"`t`.`{name}`" for name in ("recording_id", "fingerprint", "recorded_month", "attempt")]
    columns += [
        "`t`.`source`.`uri` AS `uri`",
        row_or_recheck.format("lost_s", "missing_s", "lost_s"),
        row_or_recheck.format("repairs", "repairs", "repairs"),
        "COALESCE(`r`.`duration_s`, `t`.`quality`.`duration_s`) AS `duration_s`",
        "IF(`r`.`recording_id` IS NULL, 'row', 'recheck') AS `found_by`",
    ]
    share = "IF(`duration_s` > 0, LEAST(`lost_s` / `duration_s`, 1), NULL) AS `share`"
    shown = ("recording_id", "fingerprint", "recorded_month", "attempt", "uri", "lost_s")
    return _lines(
        "-- Transcripts that lack sound, as they say themselves or `dictalake recheck` found. Order it by lost_s: where it is",
        "-- null nobody can tell how much.",
        "SELECT",
        _columns([*(f"`{name}`" for name in shown), share, "`repairs`", "`duration_s`", "`found_by`"]),
        "FROM (",
        "SELECT",
        _columns(columns),
        f"FROM {_table('transcripts')} AS `t`",
        f"LEFT JOIN {_table('rechecks')} AS `r`",
        "  ON `r`.`recording_id` = `t`.`recording_id` AND `r`.`fingerprint` = `t`.`fingerprint`",
        "  AND `r`.`attempt` = `t`.`attempt` AND `r`.`verdict` = 'lost'",
        "WHERE `t`.`quality`.`lost_s` > 0 OR `r`.`recording_id` IS NOT NULL",
        ")",
    )


def _runs() -> str:
    ended = "`event` <> 'started'"
    columns = [
        "`run_id`",
        f"COALESCE(MAX_BY(IF({ended}, `event`, NULL), IF({ended}, `at`, NULL)), 'unfinished') AS `state`",
        "MIN(IF(`event` = 'started', `at`, NULL)) AS `started_at`",
        f"MAX(IF({ended}, `at`, NULL)) AS `ended_at`",
    ]
    for field in RUNS:
        if field.name not in ("run_id", "event", "at"):
            is_there = f"ARRAY_LENGTH(`{field.name}`) > 0" if pa.types.is_map(field.type) else f"`{field.name}` IS NOT NULL"
            columns.append(f"{_newest(field.name, is_there)} AS `{field.name}`")
    return _lines(
        "-- A row per run. A run's start and its end know different columns; of what both know the end's is taken.",
        "SELECT",
        _columns(columns),
        f"FROM {_table('run_records')}",
        "GROUP BY `run_id`",
    )


def _newest(column: str, condition: str) -> str:
    return f"MAX_BY(`{column}`, IF({condition}, `at`, NULL))"


def make_descriptions() -> str:
    """Descriptions of the columns of views, which BigQuery's console shows; a view has none of its own."""
    docs = {name: {field.name: (field.metadata or {})[DOC.encode()].decode() for field in TRANSCRIPTS} for name in _DESCRIBED}
    docs["transcripts"] = docs["transcripts"] | CORRECTED
    docs["recordings"] = RECORDINGS
    lines = ["-- Once the views are there."]
    for view, columns in docs.items():
        changes = [f"  ALTER COLUMN `{name}` SET OPTIONS (description = {_quote(doc)})" for name, doc in columns.items()]
        lines += ["", f"ALTER VIEW {_table(view)}", ",\n".join(changes) + ";"]
    return _lines(*lines)


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def make_tables(lake_uri: str, region: str) -> str:
    """The dataset, and an external table for each Delta table that the views read."""
    lines = [
        "-- Once, with the lake's own bucket and region; the connection is made before, see infra/README.md.",
        f"CREATE SCHEMA IF NOT EXISTS `{DATASET}` OPTIONS (location = '{region}');",
    ]
    for name, folder in EXTERNAL_TABLES.items():
        lines += ["", *_FIRST.get(name, ())]
        lines += [
            f"CREATE OR REPLACE EXTERNAL TABLE {_table(name)}",
            f"WITH CONNECTION `{region}.{DATASET}`",
            f"OPTIONS (format = 'DELTA_LAKE', uris = ['{lake_uri}/{folder}']);",
        ]
    return _lines(*lines)
