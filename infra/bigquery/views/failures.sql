-- Written by dictalake schema --write.
-- Recordings whose last attempt under a fingerprint failed.
SELECT *
FROM `dictalake`.`transcript_rows`
QUALIFY
  ROW_NUMBER() OVER (PARTITION BY `recording_id`, `fingerprint` ORDER BY `attempt` DESC) = 1
  AND `status` = 'failed'
