"""Writes the views of ``query`` for BigQuery, over external tables on the lake's Delta tables: ``infra/bigquery``.

BigQuery reads a map of a Delta table as a list of structs of ``key`` and ``value``, and a null list as an empty one.
``transcripts`` and ``failures`` equal the views of ``query`` word for word. The other views differ because BigQuery unnests
in FROM and its MAX_BY does not skip nulls.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from dictalake.lake.places import RUNS_FOLDER, TRANSCRIPTS_FOLDER
from dictalake.lake.schema import RUNS, TRANSCRIPTS

DATASET = "dictalake"
EXTERNAL_TABLES = {"history": TRANSCRIPTS_FOLDER, "run_records": RUNS_FOLDER}  # name in BigQuery → folder of the lake
_KEYS = ("recording_id", "fingerprint", "recorded_month")


def make_views() -> dict[str, str]:
    """Name → query, one for each view of ``query.VIEWS``."""
    return {
        "transcripts": _lines(
            "-- The newest good row of each recording, of whatever model.",
            "SELECT *",
            f"FROM {_table('history')}",
            "WHERE `status` = 'ok'",
            "QUALIFY ROW_NUMBER() OVER (",
            "  PARTITION BY `recording_id`, `recorded_month` ORDER BY `provenance`.`transcribed_at` DESC, `attempt` DESC",
            ") = 1",
        ),
        "failures": _lines(
            "-- Recordings whose last attempt under a fingerprint failed.",
            "SELECT *",
            f"FROM {_table('history')}",
            "QUALIFY",
            "  ROW_NUMBER() OVER (PARTITION BY `recording_id`, `fingerprint` ORDER BY `attempt` DESC) = 1",
            "  AND `status` = 'failed'",
        ),
        "transcript_words": _unnest("words", "A row per word of transcripts; position counts from 1."),
        "transcript_sections": _unnest("sections", "A row per section of transcripts; position counts from 1."),
        "runs": _runs(),
    }


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


def make_tables(lake_uri: str, region: str) -> str:
    """The dataset, and an external table for each Delta table that the views read."""
    lines = [
        "-- Once, with the lake's own bucket and region; the connection is made before, see infra/README.md.",
        f"CREATE SCHEMA IF NOT EXISTS `{DATASET}` OPTIONS (location = '{region}');",
    ]
    for name, folder in EXTERNAL_TABLES.items():
        lines += [
            "",
            f"CREATE OR REPLACE EXTERNAL TABLE {_table(name)}",
            f"WITH CONNECTION `{region}.{DATASET}`",
            f"OPTIONS (format = 'DELTA_LAKE', uris = ['{lake_uri}/{folder}']);",
        ]
    return _lines(*lines)
