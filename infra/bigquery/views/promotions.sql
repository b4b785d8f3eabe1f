-- Written by dictalake schema --write.
-- The promoted fingerprints; place 0 is production.
SELECT
  `fingerprint`,
  DENSE_RANK() OVER (ORDER BY `at` DESC) - 1 AS `place`,
  `at` AS `promoted_at`,
  `promoted_by`,
  `run_id`,
  `other` AS `replaced`
FROM (
  SELECT
    *
  FROM `dictalake`.`fingerprint_records`
  WHERE
    `event` = 'promoted'
  QUALIFY
    ROW_NUMBER() OVER (PARTITION BY `fingerprint` ORDER BY `at` DESC) = 1
) AS `newest`
