-- Which drugs are mentioned, and how many of the mentions are negated ("no aspirin", "denies taking warfarin")?
-- Negated is a drug with one of the cues at most five words before it in the same sentence, as said in its channel.
-- The list is a short one of common drugs: put yours in its place.
WITH drugs (drug) AS (
    VALUES ('acetaminophen'), ('albuterol'), ('amiodarone'), ('amlodipine'), ('amoxicillin'), ('apixaban'), ('aspirin'),
        ('atenolol'), ('atorvastatin'), ('azithromycin'), ('carvedilol'), ('ceftriaxone'), ('cephalexin'), ('ciprofloxacin'),
        ('citalopram'), ('clopidogrel'), ('dexamethasone'), ('diazepam'), ('digoxin'), ('diltiazem'), ('doxycycline'),
        ('enoxaparin'), ('fentanyl'), ('furosemide'), ('gabapentin'), ('heparin'), ('hydralazine'), ('hydrochlorothiazide'),
        ('hydrocodone'), ('ibuprofen'), ('insulin'), ('levofloxacin'), ('levothyroxine'), ('lisinopril'), ('lorazepam'),
        ('losartan'), ('metformin'), ('metoprolol'), ('metronidazole'), ('morphine'), ('naproxen'), ('omeprazole'),
        ('ondansetron'), ('oxycodone'), ('pantoprazole'), ('penicillin'), ('prednisone'), ('rivaroxaban'), ('sertraline'),
        ('simvastatin'), ('spironolactone'), ('tamsulosin'), ('tramadol'), ('vancomycin'), ('warfarin')
),
cues (cue) AS (
    VALUES ('no'), ('not'), ('without'), ('none'), ('never'), ('neither'), ('nor'), ('cannot'), ('denies'), ('denied'), ('deny'),
        ('don''t'), ('doesn''t'), ('didn''t'), ('isn''t'), ('wasn''t'), ('hasn''t'), ('won''t')
),
said AS (
    SELECT recording_id, recorded_month, channel, position,
        lower(regexp_replace(word, '[.,;:?!]+$', '')) AS word,
        -- The number of the sentence, counted by the marks before the word; a heading ends one too.
        count(*) FILTER (regexp_matches(lower(word),
            '^(\{(period|full stop|question mark|exclamation (mark|point)|((new|next) )?(paragraph|line))\}|\[.*|.*[.?!])$')
        ) OVER (
            PARTITION BY recording_id, recorded_month, channel ORDER BY position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS sentence
    FROM transcript_words
),
judged AS (
    SELECT recording_id, word,
        coalesce(max((word IN (SELECT cue FROM cues))::INTEGER) OVER (
            PARTITION BY recording_id, recorded_month, channel, sentence ORDER BY position ROWS BETWEEN 5 PRECEDING AND 1 PRECEDING
        ), 0) = 1 AS is_negated
    FROM said
)
SELECT word AS drug,
    count(*) AS mentions,
    count(*) FILTER (is_negated) AS negated,
    count(DISTINCT recording_id) AS recordings
FROM judged
WHERE word IN (SELECT drug FROM drugs)
GROUP BY drug
ORDER BY mentions DESC, drug
