-- Written by dictalake schema --write.
-- A row per section of transcripts; position counts from 1.
SELECT
  `transcript`.`recording_id`,
  `transcript`.`fingerprint`,
  `transcript`.`recorded_month`,
  `place` + 1 AS `position`,
  `element`.`heading`,
  `element`.`name`,
  `element`.`text`
FROM `dictalake`.`transcripts` AS `transcript`
CROSS JOIN UNNEST(`transcript`.`sections`) AS `element` WITH OFFSET AS `place`
