-- Which items stand on words that the recogniser was least sure of, so that somebody should listen?
SELECT kind, recording_id, quote, round(confidence, 2) AS confidence, round(start_s, 1) AS start_s
FROM (
    SELECT 'finding' AS kind, recording_id, quote, confidence, start_s FROM findings
    UNION ALL SELECT 'medication', recording_id, quote, confidence, start_s FROM medications
    UNION ALL SELECT 'lab value', recording_id, quote, confidence, start_s FROM lab_values
) AS items
WHERE confidence IS NOT NULL
ORDER BY confidence, recording_id, start_s LIMIT 50
