-- Which drugs are mentioned, and how many of the mentions are negated ("no aspirin", "denies taking warfarin")?
-- Negated is a drug with one of the cues at most five words before it in the same sentence, as said in its channel.
-- The list is a short one of common drugs: put yours in its place, in lower case.
WITH named AS MATERIALIZED (
    SELECT recording_id, recorded_month, fingerprint, attempt, source.channels AS channels, lower(text_raw) AS text,
        regexp_extract_all(text_raw,
            '(?i)\b(?:acetaminophen|albuterol|amiodarone|amlodipine|amoxicillin|apixaban|aspirin|'
            'atenolol|atorvastatin|azithromycin|carvedilol|ceftriaxone|cephalexin|ciprofloxacin|'
            'citalopram|clopidogrel|dexamethasone|diazepam|digoxin|diltiazem|doxycycline|'
            'enoxaparin|fentanyl|furosemide|gabapentin|heparin|hydralazine|hydrochlorothiazide|'
            'hydrocodone|ibuprofen|insulin|levofloxacin|levothyroxine|lisinopril|lorazepam|'
            'losartan|metformin|metoprolol|metronidazole|morphine|naproxen|omeprazole|'
            'ondansetron|oxycodone|pantoprazole|penicillin|prednisone|rivaroxaban|sertraline|'
            'simvastatin|spironolactone|tamsulosin|tramadol|vancomycin|warfarin)\b') AS drugs
    FROM transcripts
    WHERE len(drugs) > 0
),
cues AS (
    SELECT [
            'no', 'not', 'without', 'none', 'never', 'neither', 'nor', 'cannot', 'denies', 'denied', 'deny',
            'don''t', 'doesn''t', 'didn''t', 'isn''t', 'wasn''t', 'hasn''t', 'won''t'
        ] AS cues
),
-- Of one channel the text has the words in their order, and is a tenth to read.
-- Of several channels the words of each have an order of their own.
channels AS (
    SELECT h.recording_id, [lower(drug) FOR drug IN n.drugs] AS drugs, h.words, unnest(list_distinct([w.channel FOR w IN h.words])) AS channel
    FROM named AS n JOIN history AS h
        ON h.recording_id = n.recording_id AND h.recorded_month = n.recorded_month
        AND h.fingerprint = n.fingerprint AND h.attempt = n.attempt
    WHERE n.channels IS DISTINCT FROM 1
),
spoken AS (
    SELECT recording_id, [lower(drug) FOR drug IN drugs] AS drugs, text FROM named WHERE channels = 1
    UNION ALL
    SELECT recording_id, drugs, array_to_string([lower(w.word) FOR w IN words IF w.channel = channel], ' ') FROM channels
),
-- A heading ends a sentence too. Most sentences name no drug: only those that do are taken apart.
sentences AS (
    SELECT recording_id, drugs, unnest(string_split_regex(text,
            '\{(?:period|full stop|question mark|exclamation (?:mark|point)|(?:(?:new|next) )?(?:paragraph|line))\}'
            '|\[[^\[\]]*\]|\[\S*|[.?!]+(?:\s|$)')) AS sentence
    FROM spoken
),
-- Markup of several words is one word.
said AS (
    SELECT recording_id, drugs, cues, [rtrim(word, '.,;:?!') FOR word IN
            regexp_extract_all(sentence, '\{[^{}]*\}|\S+')] AS said
    FROM sentences CROSS JOIN cues
    WHERE len([drug FOR drug IN drugs IF contains(sentence, drug)]) > 0
),
mentions AS (
    SELECT recording_id, said, cues,
        unnest([i FOR i IN generate_series(1, len(said)) IF list_contains(drugs, said[i])]) AS place
    FROM said
),
judged AS (
    SELECT recording_id, said[place] AS drug,
        list_has_any(said[greatest(1, place - 5):place - 1], cues) AS is_negated
    FROM mentions
)
SELECT drug,
    count(*) AS mentions,
    count(*) FILTER (is_negated) AS negated,
    count(DISTINCT recording_id) AS recordings
FROM judged
GROUP BY drug
ORDER BY mentions DESC, drug
