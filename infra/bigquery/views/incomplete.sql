-- Written by dictalake schema --write.
-- Transcripts that lack sound, as they say themselves or `dictalake recheck` found. Order it by lost_s: where it is
-- null nobody can tell how much.
SELECT
  `recording_id`,
  `fingerprint`,
  `recorded_month`,
  `attempt`,
  `uri`,
  `lost_s`,
  IF(`duration_s` > 0, LEAST(`lost_s` / `duration_s`, 1), NULL) AS `share`,
  `repairs`,
  `duration_s`,
  `found_by`
FROM (
SELECT
  `t`.`recording_id`,
  `t`.`fingerprint`,
  `t`.`recorded_month`,
  `t`.`attempt`,
  `t`.`source`.`uri` AS `uri`,
  IF(`r`.`recording_id` IS NULL, `t`.`quality`.`lost_s`, `r`.`missing_s`) AS `lost_s`,
  IF(`r`.`recording_id` IS NULL, `t`.`quality`.`repairs`, `r`.`repairs`) AS `repairs`,
  COALESCE(`r`.`duration_s`, `t`.`quality`.`duration_s`) AS `duration_s`,
  IF(`r`.`recording_id` IS NULL, 'row', 'recheck') AS `found_by`
FROM `dictalake`.`transcripts` AS `t`
LEFT JOIN `dictalake`.`rechecks` AS `r`
  ON `r`.`recording_id` = `t`.`recording_id` AND `r`.`fingerprint` = `t`.`fingerprint`
  AND `r`.`attempt` = `t`.`attempt` AND `r`.`verdict` = 'lost'
WHERE `t`.`quality`.`lost_s` > 0 OR `r`.`recording_id` IS NOT NULL
)
