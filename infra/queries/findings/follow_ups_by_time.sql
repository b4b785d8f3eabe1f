-- What is to follow, and when?
SELECT lower("when") AS due, lower(what) AS what, count(DISTINCT recording_id) AS recordings
FROM follow_ups
GROUP BY ALL ORDER BY due NULLS LAST, recordings DESC, what
