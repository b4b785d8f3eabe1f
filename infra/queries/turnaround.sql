-- How long does it take from a recording to its first transcript, by month?
-- A recording is of the time that DICOM gives, else of the time its object was last modified. Failed tries count as waiting.
WITH first_transcripts AS (
    SELECT recording_id,
        min(recorded_month) AS month,
        min(provenance.transcribed_at) - min(coalesce(dicom.content_datetime, source.modified_at)) AS waited
    FROM history
    WHERE status = 'ok'
    GROUP BY recording_id
)
SELECT month,
    count(waited) AS recordings,
    round(quantile_cont(epoch(waited) / 3600, 0.5), 1) AS median_hours,
    round(quantile_cont(epoch(waited) / 3600, 0.9), 1) AS ninth_decile_hours
FROM first_transcripts
GROUP BY month
ORDER BY month
