-- Which model, language model, configuration, code and bytes made each row of a recording?
-- All recordings are answered for: add WHERE recording_id = '…' for one.
SELECT h.recording_id,
    h.fingerprint,
    h.attempt,
    h.status,
    h.source.version AS object_version,
    h.source.sha256 AS bytes_sha256,
    h.provenance.model_id AS model,
    h.provenance.model_sha256 AS model_sha256,
    h.provenance.decoder AS decoder,
    h.provenance.lm_sha256 AS lm_sha256,
    h.provenance.device AS device,
    h.provenance.versions['dtype'] AS dtype,
    h.provenance.pipeline_version AS version,
    h.provenance.git_commit AS git_commit,
    r.config_hash,
    r.config,
    h.run_id,
    h.provenance.transcribed_at AS transcribed_at
FROM history h
LEFT JOIN runs r USING (run_id)
ORDER BY h.recording_id, transcribed_at, h.attempt
