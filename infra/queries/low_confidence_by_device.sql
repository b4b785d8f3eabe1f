-- From which devices do transcripts come that should be looked at?
-- Low is a confidence below 0.8; the device is the manifest's column device, else the model that DICOM names.
SELECT coalesce(metadata['device'], dicom.manufacturer_model_name, 'unknown') AS device,
    count(confidence) AS recordings,
    count(*) FILTER (confidence < 0.8) AS low,
    round(100.0 * low / recordings, 1) AS low_percent,
    round(avg(confidence), 3) AS mean_confidence
FROM transcripts
GROUP BY device
ORDER BY low_percent DESC NULLS LAST, device
