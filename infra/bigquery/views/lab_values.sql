-- Written by dictalake schema --write.
-- A row per laboratory or bedside value. position counts from 1.
SELECT
  `row`.`recording_id`,
  `row`.`fingerprint`,
  `row`.`recorded_month`,
  `place` + 1 AS `position`,
  `element`.`test`,
  `element`.`value`,
  `element`.`number`,
  `element`.`unit`,
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
CROSS JOIN UNNEST(`row`.`lab_values`) AS `element` WITH OFFSET AS `place`
