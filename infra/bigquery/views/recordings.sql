-- Written by dictalake schema --write.
-- One row for each current recording, transcribed or not, in flat columns.
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
  FROM `dictalake`.`transcripts`
  UNION ALL
  SELECT
    `f`.*,
    NULL AS `text_corrected`,
    NULL AS `corrected_by`
  FROM `dictalake`.`failures` AS `f`
  LEFT JOIN `dictalake`.`promotions` AS `p`
    ON `p`.`fingerprint` = `f`.`fingerprint`
  LEFT JOIN `dictalake`.`superseded` AS `s`
    ON `s`.`recording_id` = `f`.`recording_id`
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
    AND NOT `f`.`recording_id` IN (
      SELECT
        `recording_id`
      FROM `dictalake`.`transcripts`
    )
  QUALIFY
    ROW_NUMBER() OVER (
      PARTITION BY `f`.`recording_id`
      ORDER BY COALESCE(`p`.`place`, 0) NULLS LAST,
        `f`.`provenance`.`transcribed_at` DESC, `f`.`fingerprint` NULLS LAST, `f`.`attempt` DESC
    ) = 1
) AS `r`
