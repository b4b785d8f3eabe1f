-- Which findings were made in how many dictations of each month?
SELECT recorded_month, lower(term) AS finding, count(DISTINCT recording_id) AS recordings
FROM findings WHERE NOT negated
GROUP BY ALL ORDER BY recorded_month DESC, recordings DESC, finding
