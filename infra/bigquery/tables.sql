-- Written by dictalake schema --write.
-- Once, with the lake's own bucket and region; the connection is made before, see infra/README.md.
CREATE SCHEMA IF NOT EXISTS `dictalake` OPTIONS (location = 'europe-west3');

CREATE OR REPLACE EXTERNAL TABLE `dictalake`.`transcript_rows`
WITH CONNECTION `europe-west3.dictalake`
OPTIONS (format = 'DELTA_LAKE', uris = ['gs://my-hospital-lake/speech/transcripts']);

CREATE OR REPLACE EXTERNAL TABLE `dictalake`.`run_records`
WITH CONNECTION `europe-west3.dictalake`
OPTIONS (format = 'DELTA_LAKE', uris = ['gs://my-hospital-lake/speech/runs']);

-- Its folder is there once `dictalake recheck` has been run on the lake, whatever it finds.
CREATE OR REPLACE EXTERNAL TABLE `dictalake`.`recheck_records`
WITH CONNECTION `europe-west3.dictalake`
OPTIONS (format = 'DELTA_LAKE', uris = ['gs://my-hospital-lake/speech/rechecks']);

-- Its folder is there once dictalake 0.2 has written to the lake.
CREATE OR REPLACE EXTERNAL TABLE `dictalake`.`fingerprint_records`
WITH CONNECTION `europe-west3.dictalake`
OPTIONS (format = 'DELTA_LAKE', uris = ['gs://my-hospital-lake/speech/fingerprints']);

-- Its folder is there once somebody has corrected a transcript in `dictalake review`.
CREATE OR REPLACE EXTERNAL TABLE `dictalake`.`correction_records`
WITH CONNECTION `europe-west3.dictalake`
OPTIONS (format = 'DELTA_LAKE', uris = ['gs://my-hospital-lake/speech/corrections']);

-- Its folder is there once somebody has opened a recording in `dictalake review`.
CREATE OR REPLACE EXTERNAL TABLE `dictalake`.`access_records`
WITH CONNECTION `europe-west3.dictalake`
OPTIONS (format = 'DELTA_LAKE', uris = ['gs://my-hospital-lake/speech/accesses']);

-- Its folder is there once `dictalake extract` has been run on the lake, whatever it finds.
CREATE OR REPLACE EXTERNAL TABLE `dictalake`.`finding_rows`
WITH CONNECTION `europe-west3.dictalake`
OPTIONS (format = 'DELTA_LAKE', uris = ['gs://my-hospital-lake/speech/findings']);
