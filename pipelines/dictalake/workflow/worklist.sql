-- Which recordings a run has to do: those of the archive, less those that are done or claimed by other live runs.
--
-- Reads    listed         the archive: one row per recording (worklist.py); asked_for is all of it, or one part
--          done_rows      the rows of this fingerprint that are in the lake (schema table.DONE); their_rows are those of
--                         asked_for
--          known_rows     the ids that are in the lake, of any fingerprint (schema table.KNOWN)
--          claimed_rows   the recordings in the manifests of other live runs
--          lost_rows      rows, by recording and attempt, that lost sound (schema rechecks.LOST)
-- Settings retry          'none', 'retryable' or 'reasons': which failed recordings are done again
--          retry_reasons  a list of reasons, for 'reasons'
--          retry_lost     whether good recordings whose newest row is among lost_rows are done again
--          is_same_run    whether this run has been over its manifest and only looks for what has no row yet
--          is_part        whether asked_for is one part of the archive, and others were planned before
--          older_names    ids and URIs that an older version may have given to recordings of the archive (old_names.py)
-- Keeps    renamed        recordings that go by an older name
--          asked, planned what the run was to do again when it was planned
-- Writes   states         each recording is 'new', 'retry' or 'done'
--          pending        the work: listed, with attempt, retried, done_members and member_attempts
--          counts         one row: found, skipped, skipped_failed, claimed, pending, retried

DROP TABLE IF EXISTS newest;
DROP TABLE IF EXISTS members;
DROP TABLE IF EXISTS known;
DROP TABLE IF EXISTS adopted;
DROP TABLE IF EXISTS archives;
DROP TABLE IF EXISTS states;
DROP TABLE IF EXISTS free;
DROP TABLE IF EXISTS pending;
DROP TABLE IF EXISTS counts;

-- What this run does again, by rows as they were when it was planned. In its later rounds a recording is still to be done again
-- while the same row is its newest one.
CREATE TABLE IF NOT EXISTS asked (recording_id VARCHAR, attempt INTEGER);
CREATE TABLE IF NOT EXISTS planned (recording_id VARCHAR, attempt INTEGER, stamp HUGEINT);

-- A recording that the lake knows under an older name alone, with whatever model, goes by that name: it is done, or its next
-- attempt is counted. A row of a file in an archive object is no row of an object that had the same id.
CREATE TABLE known AS
  SELECT recording_id, max(archive_id) AS archive_id FROM known_rows
  WHERE recording_id IN (SELECT unnest([recording_id, old_id]) FROM older_names)
     OR archive_id IN (SELECT unnest([recording_id, old_id]) FROM older_names)
  GROUP BY recording_id;

CREATE TABLE adopted AS
  WITH own AS (SELECT recording_id AS id FROM known WHERE archive_id IS NULL OR archive_id = recording_id
               UNION SELECT archive_id FROM known WHERE archive_id <> recording_id)
  SELECT recording_id, arg_min(old_id, rank) AS old_id, arg_min(old_uri, rank) AS old_uri
  FROM older_names
  WHERE recording_id NOT IN (SELECT id FROM own) AND old_id IN (SELECT id FROM own)
  GROUP BY recording_id;

INSERT INTO renamed SELECT recording_id FROM adopted;
UPDATE listed SET recording_id = a.old_id, uri = a.old_uri FROM adopted AS a WHERE a.recording_id = listed.recording_id;

-- The newest row of each recording, and whether it is to be done again. archive_id is null if no row of the recording says
-- that it is an archive object or a member of one.
CREATE TABLE newest AS
  SELECT *,
    CASE WHEN getvariable('is_same_run') THEN (recording_id, attempt) IN (SELECT (recording_id, attempt) FROM asked)
      WHEN status = 'failed' THEN CASE getvariable('retry')
        WHEN 'retryable' THEN retryable
        WHEN 'reasons' THEN list_contains(getvariable('retry_reasons'), reason)
        ELSE false END
      ELSE getvariable('retry_lost') AND (recording_id, attempt) IN (SELECT (recording_id, attempt) FROM lost_rows)
    END AS again
  FROM (
    SELECT recording_id, max(attempt) AS attempt, arg_max(status, attempt) AS status,
           arg_max(error.reason, attempt) AS reason, arg_max(error.retryable, attempt) AS retryable,
           max(archive_id) AS archive_id, arg_max_null(archive_rows, attempt) AS archive_rows,
           arg_max_null(archive_id, attempt) AS newest_archive_id
    FROM their_rows GROUP BY recording_id);

DELETE FROM asked WHERE NOT getvariable('is_same_run') AND NOT getvariable('is_part');
INSERT INTO asked SELECT recording_id, attempt FROM newest WHERE again AND NOT getvariable('is_same_run');

CREATE TABLE members AS
  SELECT * FROM newest WHERE archive_id <> recording_id;

-- Archive objects of which members are committed. Besides its members an object may have a row of its own, which is
--   'same_look'    from the same reading of the object as its members, and counts as one of its rows: part of it is damaged;
--   'failed_look'  from a later reading that failed, when some members were done already. It says nothing of how many rows
--                  the object makes. The object is then given up, unless its reason may pass by itself;
--   'none'         missing, or from another reading, such as one before archives were unpacked.
-- An object is complete when as many rows are committed as its members say that it makes, or when it is given up.
CREATE TABLE archives AS
  SELECT archive_id, again, own_row, stamp,
         member_rows + (own_row = 'same_look')::INT >= expected_rows
           OR (own_row = 'failed_look'
               AND (NOT own_retryable OR own_reason = 'worker_crashed' OR getvariable('is_same_run'))) AS is_complete
  FROM (
    SELECT m.*, member_stamp + coalesce(own.attempt + 1, 0) AS stamp, own.retryable AS own_retryable, own.reason AS own_reason,
           CASE WHEN own.archive_rows = m.expected_rows THEN 'same_look'
                WHEN own.newest_archive_id IS NOT NULL AND own.archive_rows IS NULL THEN 'failed_look'
                ELSE 'none' END AS own_row
    FROM (SELECT archive_id, count(*) AS member_rows, max(archive_rows) AS expected_rows, bool_or(again) AS again,
                 sum(attempt + 1) AS member_stamp
          FROM members GROUP BY archive_id) AS m
    LEFT JOIN newest AS own ON own.recording_id = m.archive_id);

CREATE TABLE states AS
  SELECT l.recording_id, coalesce(n.attempt + 1, 0)::INT AS attempt, a.archive_id AS opened,
    CASE
      WHEN a.archive_id IS NOT NULL THEN
        CASE WHEN NOT a.is_complete THEN 'new'
             WHEN getvariable('is_same_run') THEN
               CASE WHEN a.own_row = 'failed_look' AND n.attempt >= p.attempt THEN 'done'  -- it could not be read this time
                    WHEN a.again THEN 'retry'
                    WHEN a.own_row = 'failed_look' AND n.again AND a.stamp = p.stamp THEN 'retry'  -- no row of it came
                    ELSE 'done' END
             WHEN a.again OR (a.own_row <> 'none' AND coalesce(n.again, false)) THEN 'retry'
             ELSE 'done' END
      WHEN n.recording_id IS NULL THEN 'new'
      WHEN n.archive_rows > 1 AND n.archive_id = l.recording_id
        THEN 'new'  -- an archive object's own row, without any row of its members
      WHEN n.again THEN 'retry'
      ELSE 'done' END AS state
  FROM asked_for AS l
  LEFT JOIN newest AS n USING (recording_id)
  LEFT JOIN archives AS a ON a.archive_id = l.recording_id
  LEFT JOIN planned AS p ON p.recording_id = l.recording_id;

CREATE TABLE free AS
  SELECT * FROM states
  WHERE state <> 'done' AND recording_id NOT IN (SELECT recording_id FROM claimed_rows WHERE recording_id IS NOT NULL);

-- done_members need no work any more; member_attempts gives the next attempt of members that are done again.
CREATE TABLE pending AS
  SELECT l.* EXCLUDE (part), f.attempt, f.state = 'retry' AS retried,
         CASE WHEN a.own_row = 'same_look' AND NOT own.again
              THEN list_append(coalesce(m.done, []), f.recording_id) ELSE m.done END AS done_members,
         m.attempts AS member_attempts
  FROM free AS f JOIN asked_for AS l USING (recording_id)
  LEFT JOIN archives AS a ON a.archive_id = f.opened
  LEFT JOIN newest AS own ON own.recording_id = f.opened
  LEFT JOIN (SELECT archive_id, list(recording_id) FILTER (NOT again) AS done,
                    map_from_entries(list((recording_id, (attempt + 1)::INT)) FILTER (again)) AS attempts
             FROM members WHERE archive_id IN (SELECT opened FROM free) GROUP BY archive_id) AS m
    ON m.archive_id = f.opened;

DELETE FROM planned WHERE NOT getvariable('is_same_run') AND NOT getvariable('is_part');
-- A part that could not be written is planned again.
INSERT INTO planned
  SELECT f.recording_id, f.attempt, a.stamp
  FROM free AS f JOIN archives AS a ON a.archive_id = f.opened WHERE NOT getvariable('is_same_run')
  EXCEPT SELECT * FROM planned;

CREATE TABLE counts AS
  SELECT (SELECT count(*) FROM states) AS found,
         (SELECT count(*) FROM states WHERE state = 'done') AS skipped,
         (SELECT count(*) FROM newest AS n WHERE n.status = 'failed' AND EXISTS (
             SELECT 1 FROM states AS s WHERE s.state = 'done' AND s.recording_id = coalesce(n.archive_id, n.recording_id)
             AND NOT (s.opened IS NOT NULL AND n.archive_id IS NULL))) AS skipped_failed,
         (SELECT count(*) FROM states WHERE state <> 'done') - (SELECT count(*) FROM free) AS claimed,
         (SELECT count(*) FROM pending) AS pending,
         (SELECT count(*) FROM pending WHERE retried) AS retried;
