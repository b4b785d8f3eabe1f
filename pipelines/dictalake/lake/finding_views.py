"""The views of the table ``findings``, in DuckDB's words and in BigQuery's.

``finding_rows`` are all rows. ``extractions`` has one for each current transcript: the newest good one, else the newest, of
its text as it is now: items of a text that a person corrected since do not show. Each list of items has a view with a row per
item.
"""

from __future__ import annotations

from dictalake.lake.findings_schema import FINDINGS

_WHAT = {
    "findings": "A row per finding, negated ones too.",
    "medications": "A row per drug.",
    "lab_values": "A row per laboratory or bedside value.",
    "follow_ups": "A row per thing that is to follow.",
    "impressions": "A row per sentence of the impression.",
}
_KEYS = ("recording_id", "fingerprint", "recorded_month")


def _list_fields(column: str) -> list[str]:
    struct = FINDINGS.field(column).type.value_type
    return [struct.field(i).name for i in range(struct.num_fields)]


VIEWS = {
    "extractions": """
        SELECT e.* FROM finding_rows AS e JOIN transcripts AS t
            ON t.recording_id = e.recording_id AND t.recorded_month = e.recorded_month
            AND t.fingerprint = e.transcript_fingerprint AND t.attempt = e.transcript_attempt
            AND e.corrected_sha256 IS NOT DISTINCT FROM sha256(t.text_corrected)
        QUALIFY row_number() OVER (
            PARTITION BY e.recording_id, e.recorded_month
            ORDER BY e.status DESC, e.provenance.extracted_at DESC, e.attempt DESC
        ) = 1
    """,
    **{
        name: f"""
        SELECT recording_id, fingerprint, recorded_month, generate_subscripts({name}, 1) AS position,
            unnest({name}, recursive := true)
        FROM extractions
    """
        for name in _WHAT
    },
}


def _unnest(column: str) -> str:
    names = [f"`row`.`{key}`" for key in _KEYS] + ["`place` + 1 AS `position`"]
    names += [f"`element`.`{name}`" for name in _list_fields(column)]
    columns = ",\n".join(f"  {name}" for name in names)
    return (
        f"-- {_WHAT[column]} position counts from 1.\nSELECT\n{columns}\nFROM {{extractions}} AS `row`\n"
        f"CROSS JOIN UNNEST(`row`.`{column}`) AS `element` WITH OFFSET AS `place`"
    )


BIGQUERY = {
    "extractions": """-- The newest good extraction from the text of each current transcript as it is now, else the newest.
SELECT
  `e`.*
FROM {finding_rows} AS `e`
JOIN {transcripts} AS `t`
  ON `t`.`recording_id` = `e`.`recording_id`
  AND `t`.`recorded_month` = `e`.`recorded_month`
  AND `t`.`fingerprint` = `e`.`transcript_fingerprint`
  AND `t`.`attempt` = `e`.`transcript_attempt`
  AND `e`.`corrected_sha256` IS NOT DISTINCT FROM TO_HEX(SHA256(`t`.`text_corrected`))
QUALIFY
  ROW_NUMBER() OVER (
    PARTITION BY `e`.`recording_id`, `e`.`recorded_month`
    ORDER BY `e`.`status` DESC, `e`.`provenance`.`extracted_at` DESC, `e`.`attempt` DESC
  ) = 1
""",
    **{name: _unnest(name) for name in _WHAT},
}
