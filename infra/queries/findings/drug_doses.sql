-- In which doses is each drug taken?
SELECT lower(drug) AS drug, dose, lower(unit) AS unit, lower(frequency) AS frequency, count(DISTINCT recording_id) AS recordings
FROM medications WHERE NOT negated
GROUP BY ALL ORDER BY drug, recordings DESC, dose, frequency
