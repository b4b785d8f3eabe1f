-- Written by dictalake schema --write.
-- Recordings whose object was replaced, and the recording that is the newest version of the URI.
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
      FROM `dictalake`.`transcript_rows`
    ) AS `v`
  LEFT JOIN `dictalake`.`promotions` AS `p`
    ON `p`.`fingerprint` = `v`.`fingerprint`
  CROSS JOIN (
    SELECT
      COUNT(*) AS `promoted`
    FROM `dictalake`.`promotions`
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
