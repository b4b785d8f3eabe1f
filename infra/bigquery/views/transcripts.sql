-- Written by dictalake schema --write.
-- The newest good row of each recording, of whatever model.
SELECT *
FROM `dictalake`.`history`
WHERE `status` = 'ok'
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY `recording_id`, `recorded_month` ORDER BY `provenance`.`transcribed_at` DESC, `attempt` DESC
) = 1
