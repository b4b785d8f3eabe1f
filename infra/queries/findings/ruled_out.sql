-- Which findings were looked for and ruled out most often, and how often were they there?
SELECT lower(term) AS finding, count(*) FILTER (negated) AS ruled_out, count(*) FILTER (NOT negated) AS found
FROM findings GROUP BY ALL HAVING ruled_out > 0 ORDER BY ruled_out DESC, finding
