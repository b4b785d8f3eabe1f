"""Views whose SQL for BigQuery differs from DuckDB's in little but its spelling. A name in braces is a table of the dataset.

``tests/unit/lake/test_bigquery.py`` holds each against the view of ``lake/views.py``.
"""

from __future__ import annotations

# The keys of the view transcripts, of all rows or ``some``.
_CHOSEN = """  SELECT
    `n`.`recording_id`,
    `n`.`recorded_month`,
    `n`.`fingerprint`,
    `n`.`attempt`,
    COUNT(*) OVER (
      PARTITION BY `n`.`recording_id`, `n`.`recorded_month`, `n`.`fingerprint`, `n`.`attempt`
    ) AS `copies`
  FROM (
    SELECT
      `recording_id`,
      `recorded_month`,
      `fingerprint`,
      `attempt`,
      `quality`.`lost_s` AS `row_lost_s`,
      `provenance`.`transcribed_at` AS `made_at`
    FROM {transcript_rows}
    WHERE
      `status` = 'ok'
  ) AS `n`
  LEFT JOIN {promotions} AS `p`
    ON `p`.`fingerprint` = `n`.`fingerprint`
  LEFT JOIN {superseded} AS `s`
    ON `s`.`recording_id` = `n`.`recording_id`
  LEFT JOIN (
    SELECT
      `recording_id`,
      `fingerprint`,
      `attempt`,
      `verdict`,
      `missing_s`
    FROM {recheck_records}
    WHERE
      `recording_id` IN (
        SELECT
          `recording_id`
        FROM {recheck_records}
        WHERE
          `verdict` = 'lost'
      )
    QUALIFY
      ROW_NUMBER() OVER (
        PARTITION BY `recording_id`, `fingerprint`, `attempt`
        ORDER BY `loader` DESC, `at` DESC
      ) = 1
  ) AS `r`
    ON `r`.`recording_id` = `n`.`recording_id`
    AND `r`.`fingerprint` = `n`.`fingerprint`
    AND `r`.`attempt` = `n`.`attempt`
{some}  WHERE
    `s`.`recording_id` IS NULL
    AND (
      NOT `p`.`fingerprint` IS NULL
      OR (
        SELECT
          COUNT(*)
        FROM {promotions}
      ) = 0
    )
  QUALIFY
    ROW_NUMBER() OVER (
      PARTITION BY `n`.`recording_id`, `n`.`recorded_month`
      ORDER BY COALESCE(`p`.`place`, 0) NULLS LAST, ROUND(
        CASE
          WHEN `r`.`verdict` = 'lost'
          THEN CASE
            WHEN `n`.`row_lost_s` > `r`.`missing_s`
            THEN `n`.`row_lost_s`
            ELSE `r`.`missing_s`
          END
          WHEN `r`.`verdict` = 'complete'
          THEN COALESCE(`n`.`row_lost_s`, `r`.`missing_s`)
          ELSE `n`.`row_lost_s`
        END,
        1
      ) NULLS LAST, CASE WHEN `r`.`verdict` = 'lost' THEN 0 ELSE 1 END DESC, `n`.`made_at` DESC, `n`.`attempt` DESC
    ) = 1
"""
_OF_DOUBLED_KEYS = """  JOIN (
    SELECT DISTINCT
      `recording_id`,
      `recorded_month`
    FROM (
      SELECT
        `recording_id`,
        `recorded_month`
      FROM {transcript_rows}
      WHERE
        `status` = 'ok'
      GROUP BY
        `recording_id`,
        `recorded_month`,
        `fingerprint`,
        `attempt`
      HAVING
        COUNT(*) > 1
    ) AS `k`
  ) AS `d`
    ON `d`.`recording_id` = `n`.`recording_id`
    AND `d`.`recorded_month` = `n`.`recorded_month`
"""
_SHOWN = """SELECT
  `h`.*,
  `k`.`text` AS `text_corrected`,
  `k`.`who` AS `corrected_by`
FROM {transcript_rows} AS `h`
JOIN (
"""
_TRANSCRIPTS = "".join(
    (
        """-- One row for each current recording: its best good row under production, else under what was before.
""",
        _SHOWN,
        _CHOSEN.replace("{some}", ""),
        """) AS `c`
  ON `c`.`recording_id` = `h`.`recording_id`
  AND `c`.`recorded_month` = `h`.`recorded_month`
  AND `c`.`fingerprint` = `h`.`fingerprint`
  AND `c`.`attempt` = `h`.`attempt`
  AND `h`.`status` = 'ok'
  AND `c`.`copies` = 1
LEFT JOIN {corrections} AS `k`
  ON `k`.`recording_id` = `h`.`recording_id`
UNION ALL
""",
        _SHOWN,
        _CHOSEN.replace("{some}", _OF_DOUBLED_KEYS),
        """) AS `c`
  ON `c`.`recording_id` = `h`.`recording_id`
  AND `c`.`recorded_month` = `h`.`recorded_month`
  AND `c`.`fingerprint` = `h`.`fingerprint`
  AND `c`.`attempt` = `h`.`attempt`
  AND `h`.`status` = 'ok'
  AND `c`.`copies` > 1
LEFT JOIN {corrections} AS `k`
  ON `k`.`recording_id` = `h`.`recording_id`
QUALIFY
  ROW_NUMBER() OVER (
    PARTITION BY `h`.`recording_id`, `h`.`recorded_month`
    ORDER BY ROUND(`h`.`quality`.`lost_s`, 1) NULLS LAST, `h`.`provenance`.`transcribed_at` DESC, `h`.`run_id` NULLS LAST
  ) = 1
""",
    )
)

SQL = {
    "promotions": """-- The promoted fingerprints; place 0 is production.
SELECT
  `fingerprint`,
  DENSE_RANK() OVER (ORDER BY `at` DESC) - 1 AS `place`,
  `at` AS `promoted_at`,
  `promoted_by`,
  `run_id`,
  `other` AS `replaced`
FROM (
  SELECT
    *
  FROM {fingerprint_records}
  WHERE
    `event` = 'promoted'
  QUALIFY
    ROW_NUMBER() OVER (PARTITION BY `fingerprint` ORDER BY `at` DESC) = 1
) AS `newest`
""",
    "superseded": """-- Recordings whose object was replaced, and the recording that is the newest version of the URI.
WITH `versions` AS (
  SELECT
    `v`.`recording_id`,
    MAX(`v`.`uri`) AS `uri`,
    MIN(`v`.`seen_at`) AS `seen_at`,
    MAX(
      CASE
        WHEN STARTS_WITH(`v`.`uri`, '/') OR STARTS_WITH(`v`.`uri`, 'file:')
        THEN NULL
        ELSE `v`.`modified_at`
      END
    ) AS `modified_at`,
    LOGICAL_OR(NOT `p`.`fingerprint` IS NULL OR `n`.`promoted` = 0) AS `counts`
  FROM (
      SELECT
        `recording_id`,
        `fingerprint`,
        `source`.`uri` AS `uri`,
        `source`.`modified_at` AS `modified_at`,
        `provenance`.`transcribed_at` AS `seen_at`,
        `error`.`reason` AS `reason`
      FROM {transcript_rows}
    ) AS `v`
  LEFT JOIN {promotions} AS `p`
    ON `p`.`fingerprint` = `v`.`fingerprint`
  CROSS JOIN (
    SELECT
      COUNT(*) AS `promoted`
    FROM {promotions}
  ) AS `n`
  WHERE
    `v`.`uri` <> ''
    AND (
      `v`.`reason` IS NULL OR `v`.`reason` <> 'changed_during_read'
    )
  GROUP BY
    `v`.`recording_id`
), `several` AS (
  SELECT
    `recording_id`,
    `uri`,
    `counts`,
    ROW_NUMBER() OVER (
      PARTITION BY `uri`
      ORDER BY `modified_at` DESC, `seen_at` DESC, `recording_id` DESC
    ) AS `place`
  FROM `versions`
  WHERE
    `uri` IN (
      SELECT
        `uri`
      FROM `versions`
      GROUP BY
        `uri`
      HAVING
        COUNT(*) > 1
    )
)
SELECT
  `s`.`recording_id`,
  `n`.`recording_id` AS `superseded_by`
FROM `several` AS `s`
JOIN (
  SELECT
    *
  FROM `several`
  WHERE
    `counts`
  QUALIFY
    ROW_NUMBER() OVER (PARTITION BY `uri` ORDER BY `place` NULLS LAST) = 1
) AS `n`
  ON `n`.`uri` = `s`.`uri`
WHERE
  `s`.`place` > `n`.`place`
""",
    "history": """-- Every row. A recording is current if nothing newer of its URI is in the lake.
SELECT
  `h`.*,
  `s`.`recording_id` IS NULL AS `is_current`,
  `s`.`superseded_by`
FROM {transcript_rows} AS `h`
LEFT JOIN {superseded} AS `s`
  ON `s`.`recording_id` = `h`.`recording_id`
""",
    "corrections": """-- What people say was said: the last word on each recording.
SELECT
  *
FROM (
  SELECT
    *
  FROM {correction_records}
  WHERE
    `event` IN ('corrected', 'undone')
  QUALIFY
    ROW_NUMBER() OVER (PARTITION BY `recording_id` ORDER BY `at` DESC, `correction_id` DESC) = 1
) AS `newest`
WHERE
  NOT `text` IS NULL
""",
    "transcripts": _TRANSCRIPTS,
    "recordings": """-- One row for each current recording, transcribed or not, in flat columns.
SELECT
  `recording_id`,
  `source`.`uri` AS `uri`,
  COALESCE(`dicom`.`content_datetime`, `source`.`modified_at`) AS `recorded_at`,
  CASE
    WHEN NOT `dicom`.`content_datetime` IS NULL
    THEN 'dicom'
    WHEN NOT `source`.`modified_at` IS NULL
    THEN 'object'
  END AS `recorded_at_source`,
  `recorded_month`,
  ROUND(`quality`.`duration_s`, 1) AS `duration_s`,
  `source`.`channels` AS `channels`,
  COALESCE(
    (SELECT MAX(`m`.`value`) FROM UNNEST(`metadata`) AS `m` WHERE `m`.`key` = 'specialty'),
    (SELECT MAX(`m`.`value`) FROM UNNEST(`metadata`) AS `m` WHERE `m`.`key` = 'department')
  ) AS `specialty`,
  `metadata`,
  `status`,
  `error`.`reason` AS `reason`,
  ROUND(CAST(`confidence` AS FLOAT64), 3) AS `confidence`,
  ROUND(`quality`.`lost_s`, 1) AS `lost_s`,
  `provenance`.`model_id` AS `model`,
  `fingerprint`,
  `attempt`,
  `run_id`
FROM (
  SELECT
    *
  FROM {transcripts}
  UNION ALL
  SELECT
    `f`.*,
    NULL AS `text_corrected`,
    NULL AS `corrected_by`
  FROM {failures} AS `f`
  LEFT JOIN {promotions} AS `p`
    ON `p`.`fingerprint` = `f`.`fingerprint`
  LEFT JOIN {superseded} AS `s`
    ON `s`.`recording_id` = `f`.`recording_id`
  WHERE
    `s`.`recording_id` IS NULL
    AND (
      NOT `p`.`fingerprint` IS NULL
      OR (
        SELECT
          COUNT(*)
        FROM {promotions}
      ) = 0
    )
    AND NOT `f`.`recording_id` IN (
      SELECT
        `recording_id`
      FROM {transcripts}
    )
  QUALIFY
    ROW_NUMBER() OVER (
      PARTITION BY `f`.`recording_id`
      ORDER BY COALESCE(`p`.`place`, 0) NULLS LAST,
        `f`.`provenance`.`transcribed_at` DESC, `f`.`fingerprint` NULLS LAST, `f`.`attempt` DESC
    ) = 1
) AS `r`
""",
}
