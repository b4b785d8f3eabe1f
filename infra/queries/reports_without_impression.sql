-- How many reports have headings but no impression, by specialty?
-- Headings such as CONCLUSION are gathered under the name IMPRESSION.
WITH headed AS (
    SELECT recording_id, recorded_month, bool_or(coalesce(name, heading, '') = 'IMPRESSION') AS has_impression
    FROM transcript_sections
    GROUP BY recording_id, recorded_month
    HAVING count(heading) > 0
)
SELECT coalesce(metadata['specialty'], metadata['department'], 'unknown') AS specialty,
    count(*) AS reports,
    count(*) FILTER (NOT has_impression) AS without_impression,
    round(100.0 * without_impression / reports, 1) AS without_percent
FROM headed JOIN transcripts USING (recording_id, recorded_month)
GROUP BY specialty
ORDER BY without_percent DESC, specialty
