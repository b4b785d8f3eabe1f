-- Written by dictalake schema --write.
-- The best good row of each recording: that which lost least sound, of equal ones the newest, of whatever model.
-- What `dictalake recheck` measured counts where it found that a row of the recording lost sound.
SELECT `h`.* EXCEPT (`row_lost_s`, `made_at`)
FROM (
  SELECT *, `quality`.`lost_s` AS `row_lost_s`, `provenance`.`transcribed_at` AS `made_at`
  FROM `dictalake`.`history`
  WHERE `status` = 'ok'
) AS `h`
LEFT JOIN (
  SELECT `recording_id`, `fingerprint`, `attempt`, `verdict`, `missing_s`
  FROM `dictalake`.`recheck_records`
  WHERE `recording_id` IN (SELECT `recording_id` FROM `dictalake`.`recheck_records` WHERE `verdict` = 'lost')
  QUALIFY ROW_NUMBER() OVER (
    PARTITION BY `recording_id`, `fingerprint`, `attempt` ORDER BY `loader` DESC, `at` DESC
  ) = 1
) AS `r`
  ON `r`.`recording_id` = `h`.`recording_id` AND `r`.`fingerprint` = `h`.`fingerprint`
  AND `r`.`attempt` = `h`.`attempt`
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY `h`.`recording_id`, `h`.`recorded_month`
  ORDER BY
    ROUND(CASE
      WHEN `r`.`verdict` = 'lost'
        THEN CASE WHEN `h`.`row_lost_s` > `r`.`missing_s` THEN `h`.`row_lost_s` ELSE `r`.`missing_s` END
      WHEN `r`.`verdict` = 'complete' THEN COALESCE(`h`.`row_lost_s`, `r`.`missing_s`)
      ELSE `h`.`row_lost_s`
    END, 1) NULLS LAST,
    CASE WHEN `r`.`verdict` = 'lost' THEN 0 ELSE 1 END DESC,
    `h`.`made_at` DESC,
    `h`.`attempt` DESC
) = 1
