-- Written by dictalake schema --write.
-- One row for each current recording: its best good row under production, else under what was before.
SELECT
  `h`.*,
  `k`.`text` AS `text_corrected`,
  `k`.`who` AS `corrected_by`
FROM `dictalake`.`transcript_rows` AS `h`
JOIN (
  SELECT
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
    FROM `dictalake`.`transcript_rows`
    WHERE
      `status` = 'ok'
  ) AS `n`
  LEFT JOIN `dictalake`.`promotions` AS `p`
    ON `p`.`fingerprint` = `n`.`fingerprint`
  LEFT JOIN `dictalake`.`superseded` AS `s`
    ON `s`.`recording_id` = `n`.`recording_id`
  LEFT JOIN (
    SELECT
      `recording_id`,
      `fingerprint`,
      `attempt`,
      `verdict`,
      `missing_s`
    FROM `dictalake`.`recheck_records`
    WHERE
      `recording_id` IN (
        SELECT
          `recording_id`
        FROM `dictalake`.`recheck_records`
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
  WHERE
    `s`.`recording_id` IS NULL
    AND (
      NOT `p`.`fingerprint` IS NULL
      OR (
        SELECT
          COUNT(*)
        FROM `dictalake`.`promotions`
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
) AS `c`
  ON `c`.`recording_id` = `h`.`recording_id`
  AND `c`.`recorded_month` = `h`.`recorded_month`
  AND `c`.`fingerprint` = `h`.`fingerprint`
  AND `c`.`attempt` = `h`.`attempt`
  AND `h`.`status` = 'ok'
  AND `c`.`copies` = 1
LEFT JOIN `dictalake`.`corrections` AS `k`
  ON `k`.`recording_id` = `h`.`recording_id`
UNION ALL
SELECT
  `h`.*,
  `k`.`text` AS `text_corrected`,
  `k`.`who` AS `corrected_by`
FROM `dictalake`.`transcript_rows` AS `h`
JOIN (
  SELECT
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
    FROM `dictalake`.`transcript_rows`
    WHERE
      `status` = 'ok'
  ) AS `n`
  LEFT JOIN `dictalake`.`promotions` AS `p`
    ON `p`.`fingerprint` = `n`.`fingerprint`
  LEFT JOIN `dictalake`.`superseded` AS `s`
    ON `s`.`recording_id` = `n`.`recording_id`
  LEFT JOIN (
    SELECT
      `recording_id`,
      `fingerprint`,
      `attempt`,
      `verdict`,
      `missing_s`
    FROM `dictalake`.`recheck_records`
    WHERE
      `recording_id` IN (
        SELECT
          `recording_id`
        FROM `dictalake`.`recheck_records`
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
  JOIN (
    SELECT DISTINCT
      `recording_id`,
      `recorded_month`
    FROM (
      SELECT
        `recording_id`,
        `recorded_month`
      FROM `dictalake`.`transcript_rows`
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
  WHERE
    `s`.`recording_id` IS NULL
    AND (
      NOT `p`.`fingerprint` IS NULL
      OR (
        SELECT
          COUNT(*)
        FROM `dictalake`.`promotions`
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
) AS `c`
  ON `c`.`recording_id` = `h`.`recording_id`
  AND `c`.`recorded_month` = `h`.`recorded_month`
  AND `c`.`fingerprint` = `h`.`fingerprint`
  AND `c`.`attempt` = `h`.`attempt`
  AND `h`.`status` = 'ok'
  AND `c`.`copies` > 1
LEFT JOIN `dictalake`.`corrections` AS `k`
  ON `k`.`recording_id` = `h`.`recording_id`
QUALIFY
  ROW_NUMBER() OVER (
    PARTITION BY `h`.`recording_id`, `h`.`recorded_month`
    ORDER BY ROUND(`h`.`quality`.`lost_s`, 1) NULLS LAST, `h`.`provenance`.`transcribed_at` DESC, `h`.`run_id` NULLS LAST
  ) = 1
