-- Written by dictalake schema --write.
-- Every row. A recording is current if nothing newer of its URI is in the lake.
SELECT
  `h`.*,
  `s`.`recording_id` IS NULL AS `is_current`,
  `s`.`superseded_by`
FROM `dictalake`.`transcript_rows` AS `h`
LEFT JOIN `dictalake`.`superseded` AS `s`
  ON `s`.`recording_id` = `h`.`recording_id`
