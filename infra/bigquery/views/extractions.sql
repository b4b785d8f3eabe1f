-- Written by dictalake schema --write.
-- The newest good extraction from the text of each current transcript as it is now, else the newest.
SELECT
  `e`.*
FROM `dictalake`.`finding_rows` AS `e`
JOIN `dictalake`.`transcripts` AS `t`
  ON `t`.`recording_id` = `e`.`recording_id`
  AND `t`.`recorded_month` = `e`.`recorded_month`
  AND `t`.`fingerprint` = `e`.`transcript_fingerprint`
  AND `t`.`attempt` = `e`.`transcript_attempt`
  AND `e`.`corrected_sha256` IS NOT DISTINCT FROM TO_HEX(SHA256(`t`.`text_corrected`))
QUALIFY
  ROW_NUMBER() OVER (
    PARTITION BY `e`.`recording_id`, `e`.`recorded_month`
    ORDER BY `e`.`status` DESC, `e`.`provenance`.`extracted_at` DESC, `e`.`attempt` DESC
  ) = 1
