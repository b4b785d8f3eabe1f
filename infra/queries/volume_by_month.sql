-- How much is dictated, by specialty and month?
-- The specialty is the manifest's column specialty, else department.
SELECT coalesce(metadata['specialty'], metadata['department'], 'unknown') AS specialty,
    recorded_month AS month,
    count(*) AS recordings,
    round(sum(quality.duration_s) / 3600, 3) AS audio_hours
FROM transcripts
GROUP BY ALL
ORDER BY specialty, month
