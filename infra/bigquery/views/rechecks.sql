-- Written by dictalake schema --write.
-- What `dictalake recheck` found: the newest record of each row that it compared with what can be read today.
SELECT *
FROM `dictalake`.`recheck_records`
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY `recording_id`, `fingerprint`, `attempt` ORDER BY `loader` DESC, `at` DESC
) = 1
