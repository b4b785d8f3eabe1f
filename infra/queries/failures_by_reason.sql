-- What could not be transcribed, why, and may another try help?
-- Only recordings that no model has transcribed since.
SELECT error.reason AS reason,
    error.stage AS stage,
    error.retryable AS may_pass,
    count(DISTINCT recording_id) AS recordings,
    min(recorded_month) AS first_month,
    max(recorded_month) AS last_month
FROM failures
WHERE recording_id NOT IN (SELECT recording_id FROM transcripts)
GROUP BY reason, stage, may_pass
ORDER BY recordings DESC, reason
