-- Where was speech heard and nothing written?
-- Suspicious are recordings with more than five seconds of it; the worst of each month is named.
SELECT recorded_month AS month,
    count(*) AS recordings,
    count(*) FILTER (quality.uncovered_speech_s > 5) AS suspicious,
    round(100.0 * sum(quality.uncovered_speech_s) / nullif(sum(quality.speech_s), 0), 2) AS speech_without_words_percent,
    arg_max(recording_id, quality.uncovered_speech_s) FILTER (quality.uncovered_speech_s > 5) AS worst_recording
FROM transcripts
GROUP BY month
ORDER BY month
