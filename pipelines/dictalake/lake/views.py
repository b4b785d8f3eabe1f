"""The views that SQL on a lake sees, in DuckDB's words. ``lake/bigquery.py`` has the same ones in BigQuery's.

``connect`` registers what they read: ``transcript_rows`` and ``finding_rows`` (every row), ``run_records``,
``recheck_records``, ``fingerprint_records``, ``correction_records``, ``access_records``, and ``recording_versions``, the few
columns of all rows that tell which recordings were replaced.
"""

from __future__ import annotations

from dictalake.lake.finding_views import VIEWS as FINDING_VIEWS
from dictalake.lake.schema import RUNS

# A run's first and last record fill different columns; where both fill one, the last counts.
_RUN_COLUMNS = ",\n            ".join(
    f'arg_max("{name}", "at") AS "{name}"' for name in RUNS.names if name not in ("run_id", "event", "at")
)

COMPUTE_SUPERSEDED = """
        WITH versions AS (
            SELECT v.recording_id, max(v.uri) AS uri, min(v.seen_at) AS seen_at,
                max(CASE WHEN starts_with(v.uri, '/') OR starts_with(v.uri, 'file:') THEN NULL ELSE v.modified_at END)
                    AS modified_at,
                bool_or(p.fingerprint IS NOT NULL OR n.promoted = 0) AS counts
            FROM recording_versions AS v LEFT JOIN promotions AS p ON p.fingerprint = v.fingerprint
            CROSS JOIN (SELECT count(*) AS promoted FROM promotions) AS n
            WHERE v.uri <> '' AND (v.reason IS NULL OR v.reason <> 'changed_during_read')
            GROUP BY v.recording_id
        ),
        several AS (
            SELECT recording_id, uri, counts, row_number() OVER (
                    PARTITION BY uri
                    ORDER BY modified_at DESC NULLS LAST, seen_at DESC NULLS LAST, recording_id DESC
                ) AS place
            FROM versions
            WHERE uri IN (SELECT uri FROM versions GROUP BY uri HAVING count(*) > 1)
        )
        SELECT s.recording_id, n.recording_id AS superseded_by
        FROM several AS s JOIN (
            SELECT * FROM several WHERE counts QUALIFY row_number() OVER (PARTITION BY uri ORDER BY place) = 1
        ) AS n ON n.uri = s.uri
        WHERE s.place > n.place""".strip()
# The same as a run wrote it down, which costs a reader nothing.
STORED_SUPERSEDED = """
    SELECT recording_id, superseded_by FROM superseded_records
    QUALIFY row_number() OVER (PARTITION BY recording_id ORDER BY "at" DESC) = 1
"""

# The keys of the view transcripts. ``copies`` counts the good rows with such a key.
_CHOSEN = """
            SELECT n.recording_id, n.recorded_month, n.fingerprint, n.attempt{copies}
            FROM (
                SELECT recording_id, recorded_month, fingerprint, attempt, quality.lost_s AS row_lost_s,
                    provenance.transcribed_at AS made_at
                FROM transcript_rows WHERE status = 'ok'
            ) AS n LEFT JOIN promotions AS p ON p.fingerprint = n.fingerprint
            LEFT JOIN superseded AS s ON s.recording_id = n.recording_id
            LEFT JOIN (
                SELECT recording_id, fingerprint, attempt, verdict, missing_s FROM recheck_records
                WHERE recording_id IN (SELECT recording_id FROM recheck_records WHERE verdict = 'lost')
                QUALIFY row_number() OVER (
                    PARTITION BY recording_id, fingerprint, attempt ORDER BY loader DESC, "at" DESC
                ) = 1
            ) AS r ON r.recording_id = n.recording_id AND r.fingerprint = n.fingerprint AND r.attempt = n.attempt{some}
            WHERE s.recording_id IS NULL AND (p.fingerprint IS NOT NULL OR (SELECT count(*) FROM promotions) = 0)
            QUALIFY row_number() OVER (
                PARTITION BY n.recording_id, n.recorded_month
                ORDER BY coalesce(p.place, 0), round(CASE
                        WHEN r.verdict = 'lost'
                            THEN CASE WHEN n.row_lost_s > r.missing_s THEN n.row_lost_s ELSE r.missing_s END
                        WHEN r.verdict = 'complete' THEN coalesce(n.row_lost_s, r.missing_s)
                        ELSE n.row_lost_s
                    END, 1) NULLS LAST,
                    CASE WHEN r.verdict = 'lost' THEN 0 ELSE 1 END DESC, n.made_at DESC, n.attempt DESC
            ) = 1""".strip()
_COPIES = ", count(*) OVER (PARTITION BY n.recording_id, n.recorded_month, n.fingerprint, n.attempt) AS copies"
# The rows of the recordings with a doubled key, in a form that lets DuckDB skip the files of other months.
_OF_DOUBLED_KEYS = """
            JOIN (
                SELECT DISTINCT recording_id, recorded_month
                FROM (
                    SELECT recording_id, recorded_month FROM transcript_rows WHERE status = 'ok'
                    GROUP BY recording_id, recorded_month, fingerprint, attempt HAVING count(*) > 1
                ) AS k
            ) AS d ON d.recording_id = n.recording_id AND d.recorded_month = n.recorded_month""".rstrip()
_IS_CHOSEN = """c.recording_id = h.recording_id AND c.recorded_month = h.recorded_month
            AND c.fingerprint = h.fingerprint AND c.attempt = h.attempt AND h.status = 'ok'"""
_SHOWN = 'SELECT h.*, k."text" AS text_corrected, k.who AS corrected_by'
_WITH_CORRECTIONS = "LEFT JOIN corrections AS k ON k.recording_id = h.recording_id"
# The view transcripts of a lake in which no key is there twice.
TRANSCRIPTS_OF_SINGLE_KEYS = f"""
        {_SHOWN}
        FROM transcript_rows AS h JOIN (
            {_CHOSEN.format(copies="", some="")}
        ) AS c ON {_IS_CHOSEN}
        {_WITH_CORRECTIONS}
    """

# What the columns of the view recordings mean; the other views have the columns of their tables.
RECORDINGS = {
    "recording_id": "blake2b-128 of URI and object version, 32 hex digits",
    "uri": "where the object was read; of a file inside an archive object: URI#PATH",
    "recorded_at": "when it was recorded, UTC, as recorded_at_source says",
    "recorded_at_source": "dicom: its Content Date and Time; object: the modification time of the object",
    "recorded_month": "YYYY-MM of the recording, or unknown; a condition on it keeps the files of other months closed",
    "duration_s": "length of the recording, seconds, to a tenth",
    "channels": "stored channels",
    "specialty": "specialty, or else department, of your manifest",
    "metadata": "all other columns of your manifest",
    "status": "ok, or failed where no fingerprint that counts has a transcript",
    "reason": "why it failed; null when ok",
    "confidence": "0-1, mean over words, to a thousandth",
    "lost_s": "sound that could not be decoded, seconds, to a tenth; null where unknown",
    "model": "acoustic model: Hugging Face id, folder name or embedded name",
    "fingerprint": "fingerprint of the row that counts",
    "attempt": "attempt of that row, 0 at first",
    "run_id": "run that wrote it",
}
# What the view transcripts has beside the columns of its table.
CORRECTED = {
    "text_corrected": "what a person says was said; null where nobody corrected it. It may be of another fingerprint's row",
    "corrected_by": "who corrected it last; null where nobody did",
}
VIEWS = {
    # The promoted fingerprints; place 0 is production. Those of a lake from before 0.2 share a place: they count together.
    "promotions": """
        SELECT fingerprint, dense_rank() OVER (ORDER BY "at" DESC) - 1 AS place, "at" AS promoted_at, promoted_by, run_id,
            other AS replaced
        FROM (
            SELECT * FROM fingerprint_records WHERE event = 'promoted'
            QUALIFY row_number() OVER (PARTITION BY fingerprint ORDER BY "at" DESC) = 1
        ) AS newest
    """,
    # Recordings whose object was replaced, each with the recording that is the newest version of the URI among those with a
    # row that counts: what an experiment alone has seen replaces nothing. An object store dates its versions. A file may be
    # replaced by one with an older date: of files, the version that came later into the lake is the newer one. A row that
    # says that the object changed while it was read says nothing about which version is there.
    "superseded": f"""
        {COMPUTE_SUPERSEDED}
    """,
    # Every row. A recording is current if nothing newer of its URI is in the lake.
    "history": """
        SELECT h.*, s.recording_id IS NULL AS is_current, s.superseded_by
        FROM transcript_rows AS h LEFT JOIN superseded AS s ON s.recording_id = h.recording_id
    """,
    # What people say was said: the last word on each recording. Undone ones are gone; claims say nothing about the words.
    "corrections": """
        SELECT * FROM (
            SELECT * FROM correction_records WHERE event IN ('corrected', 'undone')
            QUALIFY row_number() OVER (PARTITION BY recording_id ORDER BY "at" DESC, correction_id DESC) = 1
        ) AS newest WHERE "text" IS NOT NULL
    """,
    # One row for each current recording: of its good rows under the production fingerprint the one that lost least sound, of
    # equal ones the newest; where it has none, that of the fingerprint that was promoted before, and so on. Other fingerprints
    # are experiments and never show. In a lake in which nothing was promoted every fingerprint counts.
    # Losses are equal to a tenth of a second. Rows of version 5 and before do not say what they lost and come last. Recordings
    # without a good row are missing.
    # A row knows nothing of what its loader dropped in silence. So where a recheck found that a row of a recording lost sound,
    # its measures count for the rows that it compared: such a row comes behind the one that was made in its place, unless that
    # lost more than the recheck measured. Only the rows of those few recordings meet one in the join.
    # The order takes columns of ``quality`` and ``provenance`` alone: ``source`` holds long strings, which nearly every query
    # would have to read. They are taken out of their structs before the join, which would copy the structs. Only the keys go
    # through the window and choose the rows, so no text or word waits in memory. The month is a key
    # too, because DuckDB can skip files by keys alone. A recording has one month, except where an object's date changed and its
    # version did not (archive.time_zone, the same bytes copied to S3 again): then it has a row in each month.
    # A foreign writer, or an old version, may have written a key twice: then its best row shows. Only the rows of such keys go
    # through a window as a whole. ``superseded.has_single_keys`` knows of most lakes that they have none.
    "transcripts": f"""
        {_SHOWN}
        FROM transcript_rows AS h JOIN (
            {_CHOSEN.format(copies=_COPIES, some="")}
        ) AS c ON {_IS_CHOSEN} AND c.copies = 1
        {_WITH_CORRECTIONS}
        UNION ALL
        {_SHOWN}
        FROM transcript_rows AS h JOIN (
            {_CHOSEN.format(copies=_COPIES, some=_OF_DOUBLED_KEYS)}
        ) AS c ON {_IS_CHOSEN} AND c.copies > 1
        {_WITH_CORRECTIONS}
        QUALIFY row_number() OVER (
            PARTITION BY h.recording_id, h.recorded_month
            ORDER BY round(h.quality.lost_s, 1) NULLS LAST, h.provenance.transcribed_at DESC, h.run_id
        ) = 1
    """,
    # Recordings whose last attempt under a fingerprint failed.
    "failures": """
        SELECT * FROM transcript_rows
        QUALIFY row_number() OVER (PARTITION BY recording_id, fingerprint ORDER BY attempt DESC) = 1 AND status = 'failed'
    """,
    # One row for each current recording, transcribed or not, in flat columns with rounded numbers: for spreadsheets.
    "recordings": """
        SELECT recording_id, source.uri AS uri, coalesce(dicom.content_datetime, source.modified_at) AS recorded_at,
            CASE WHEN dicom.content_datetime IS NOT NULL THEN 'dicom' WHEN source.modified_at IS NOT NULL THEN 'object' END
                AS recorded_at_source,
            recorded_month, round(quality.duration_s, 1) AS duration_s, source.channels AS channels,
            coalesce(metadata['specialty'], metadata['department']) AS specialty, metadata, status, error.reason AS reason,
            round(CAST(confidence AS DOUBLE), 3) AS confidence, round(quality.lost_s, 1) AS lost_s,
            provenance.model_id AS model, fingerprint, attempt, run_id
        FROM (
            SELECT * FROM transcripts
            UNION ALL
            SELECT f.*, NULL AS text_corrected, NULL AS corrected_by FROM failures AS f
            LEFT JOIN promotions AS p ON p.fingerprint = f.fingerprint
            LEFT JOIN superseded AS s ON s.recording_id = f.recording_id
            WHERE s.recording_id IS NULL AND (p.fingerprint IS NOT NULL OR (SELECT count(*) FROM promotions) = 0)
                AND f.recording_id NOT IN (SELECT recording_id FROM transcripts)
            QUALIFY row_number() OVER (
                PARTITION BY f.recording_id
                ORDER BY coalesce(p.place, 0), f.provenance.transcribed_at DESC NULLS LAST, f.fingerprint, f.attempt DESC
            ) = 1
        ) AS r
    """,
    # A row per word of transcripts; position counts from 1, the other columns are those of schema.TRANSCRIPTS' words.
    "transcript_words": """
        SELECT recording_id, fingerprint, recorded_month,
            generate_subscripts(words, 1) AS position, unnest(words, recursive := true)
        FROM transcripts
    """,
    # A row per section of transcripts, likewise.
    "transcript_sections": """
        SELECT recording_id, fingerprint, recorded_month,
            generate_subscripts(sections, 1) AS position, unnest(sections, recursive := true)
        FROM transcripts
    """,
    # What `dictalake recheck` found: the newest record of each row that it compared with what can be read today.
    "rechecks": """
        SELECT * FROM recheck_records
        QUALIFY row_number() OVER (PARTITION BY recording_id, fingerprint, attempt ORDER BY loader DESC, "at" DESC) = 1
    """,
    # Transcripts that lack sound, as they say themselves or a recheck found, the worst first; those of which nobody can tell
    # how much come before all. A length holds the silence that stands for a hole, but nothing for an end that was cut off.
    "incomplete": """
        SELECT recording_id, fingerprint, recorded_month, attempt, uri, lost_s,
            CASE WHEN duration_s > 0 AND lost_s IS NOT NULL THEN least(lost_s / duration_s, 1) END AS share,
            repairs, duration_s, found_by
        FROM (
            SELECT t.recording_id, t.fingerprint, t.recorded_month, t.attempt, t.source.uri AS uri,
                CASE WHEN r.recording_id IS NULL THEN t.quality.lost_s ELSE r.missing_s END AS lost_s,
                CASE WHEN r.recording_id IS NULL THEN t.quality.repairs ELSE r.repairs END AS repairs,
                coalesce(r.duration_s, t.quality.duration_s) AS duration_s,
                CASE WHEN r.recording_id IS NULL THEN 'row' ELSE 'recheck' END AS found_by
            FROM transcripts AS t LEFT JOIN rechecks AS r
                ON r.recording_id = t.recording_id AND r.fingerprint = t.fingerprint AND r.attempt = t.attempt
                AND r.verdict = 'lost'
            WHERE t.quality.lost_s > 0 OR r.recording_id IS NOT NULL
        ) AS found
        ORDER BY lost_s DESC NULLS FIRST, recording_id
    """,
    # A row per run. An unfinished run is still at work or was killed: `dictalake runs` tells which.
    "runs": f"""
        SELECT run_id, coalesce(arg_max(event, "at") FILTER (event <> 'started'), 'unfinished') AS state,
            min("at") FILTER (event = 'started') AS started_at, max("at") FILTER (event <> 'started') AS ended_at,
            {_RUN_COLUMNS}
        FROM run_records GROUP BY run_id
    """,
    **FINDING_VIEWS,
}
