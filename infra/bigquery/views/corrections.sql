-- Written by dictalake schema --write.
-- What people say was said: the last word on each recording.
SELECT
  *
FROM (
  SELECT
    *
  FROM `dictalake`.`correction_records`
  WHERE
    `event` IN ('corrected', 'undone')
  QUALIFY
    ROW_NUMBER() OVER (PARTITION BY `recording_id` ORDER BY `at` DESC, `correction_id` DESC) = 1
) AS `newest`
WHERE
  NOT `text` IS NULL
