-- How often is something dictated again, by month?
-- Again: not the first recording of its DICOM study, else of the manifest's column study, else of its object's name.
WITH takes AS (
    SELECT recorded_month AS month,
        row_number() OVER (
            PARTITION BY coalesce(dicom.study_instance_uid, metadata['study'], source.uri)
            ORDER BY coalesce(dicom.content_datetime, source.modified_at), recording_id
        ) AS take
    FROM transcripts
)
SELECT month,
    count(*) AS recordings,
    count(*) FILTER (take > 1) AS again,
    round(100.0 * again / recordings, 1) AS again_percent
FROM takes
GROUP BY month
ORDER BY month
