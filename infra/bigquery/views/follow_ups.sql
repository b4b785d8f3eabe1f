-- Written by dictalake schema --write.
-- A row per thing that is to follow. position counts from 1.
SELECT
  `row`.`recording_id`,
  `row`.`fingerprint`,
  `row`.`recorded_month`,
  `place` + 1 AS `position`,
  `element`.`what`,
  `element`.`when`,
  `element`.`quote`,
  `element`.`places`,
  `element`.`start_char`,
  `element`.`end_char`,
  `element`.`first_word`,
  `element`.`last_word`,
  `element`.`start_s`,
  `element`.`end_s`,
  `element`.`confidence`
FROM `dictalake`.`extractions` AS `row`
CROSS JOIN UNNEST(`row`.`follow_ups`) AS `element` WITH OFFSET AS `place`
