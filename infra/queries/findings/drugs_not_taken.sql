-- Which drugs were stopped, refused or not tolerated, and in which words?
SELECT lower(drug) AS drug, recording_id, quote, round(start_s, 1) AS start_s
FROM medications WHERE negated
ORDER BY drug, recording_id, position
