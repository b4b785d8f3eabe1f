-- What did a new model or setting change in recordings that had a transcript before?
-- Each fingerprint is compared with the one that transcribed the same recording before it.
WITH good AS (
    SELECT recording_id, fingerprint, text_raw, confidence, provenance.transcribed_at AS transcribed_at
    FROM history
    WHERE status = 'ok'
    QUALIFY row_number() OVER (PARTITION BY recording_id, fingerprint ORDER BY attempt DESC) = 1
),
pairs AS (
    SELECT *, lag(fingerprint) OVER earlier AS old, lag(text_raw) OVER earlier AS old_text,
        lag(confidence) OVER earlier AS old_confidence
    FROM good
    WINDOW earlier AS (PARTITION BY recording_id ORDER BY transcribed_at, fingerprint)
)
SELECT old,
    fingerprint AS new,
    count(*) AS recordings,
    count(*) FILTER (text_raw IS DISTINCT FROM old_text) AS changed,
    round(100.0 * changed / recordings, 1) AS changed_percent,
    round(avg(confidence - old_confidence), 3) AS confidence_gained
FROM pairs
WHERE old IS NOT NULL
GROUP BY old, new
ORDER BY recordings DESC, old, new
