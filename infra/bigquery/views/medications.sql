-- Written by dictalake schema --write.
-- A row per drug. position counts from 1.
SELECT
  `row`.`recording_id`,
  `row`.`fingerprint`,
  `row`.`recorded_month`,
  `place` + 1 AS `position`,
  `element`.`drug`,
  `element`.`dose`,
  `element`.`unit`,
  `element`.`route`,
  `element`.`frequency`,
  `element`.`negated`,
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
CROSS JOIN UNNEST(`row`.`medications`) AS `element` WITH OFFSET AS `place`
