-- What is new or has grown since before, how large is it, and where do I hear it?
SELECT recording_id, term, anatomy, side, change, measurement, unit, quote, round(start_s, 1) AS start_s
FROM findings WHERE NOT negated AND change IN ('new', 'increased')
ORDER BY measurement DESC NULLS LAST, recording_id, position
