-- How many items does each model give, how many of them are dropped, and for which reasons?
SELECT e.provenance.model AS model, e.fingerprint, count(DISTINCT e.recording_id) AS recordings,
    (SELECT sum(offered) FROM finding_rows AS r WHERE r.fingerprint = e.fingerprint) AS items,
    reasons.key AS reason, sum(reasons.value) AS dropped
FROM (SELECT *, unnest(map_entries(dropped)) AS reasons FROM finding_rows) AS e
GROUP BY ALL ORDER BY model, fingerprint, dropped DESC, reason
