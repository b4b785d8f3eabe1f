-- Written by dictalake schema --write.
-- A row per word of transcripts; position counts from 1.
SELECT
  `transcript`.`recording_id`,
  `transcript`.`fingerprint`,
  `transcript`.`recorded_month`,
  `place` + 1 AS `position`,
  `element`.`word`,
  `element`.`start_s`,
  `element`.`end_s`,
  `element`.`confidence`,
  `element`.`channel`
FROM `dictalake`.`transcripts` AS `transcript`
CROSS JOIN UNNEST(`transcript`.`words`) AS `element` WITH OFFSET AS `place`
