-- What did the runs of each month do, how fast, and how many did not come to a good end?
-- Speed is hours of audio in an hour of run; unfinished runs are still at work or were killed.
SELECT strftime(started_at, '%Y-%m') AS month,
    job,
    count(*) AS runs,
    count(*) FILTER (state <> 'finished') AS failed_or_unfinished,
    coalesce(sum(ok), 0) AS transcribed,
    coalesce(sum(failed), 0) AS failed_recordings,
    round(sum(audio_hours), 3) AS audio_hours,
    round(sum(audio_hours) / nullif(sum(wall_s) / 3600, 0), 1) AS speed
FROM runs
GROUP BY month, job
ORDER BY month, job
