-- Written by dictalake schema --write.
-- The best good row of each recording: that which lost least sound, of equal ones the newest, of whatever model.
SELECT *
FROM `dictalake`.`history`
WHERE `status` = 'ok'
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY `recording_id`, `recorded_month`
  ORDER BY `quality`.`lost_s` NULLS LAST, `provenance`.`transcribed_at` DESC, `attempt` DESC
) = 1
