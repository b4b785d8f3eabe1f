"""Transcribes what is in an archive and not yet in the lake.

    ray job submit -- python -m jobs.backfill --config medasr --ray.address auto \\
        --archive.uri gs://my-hospital-dictations --lake.uri gs://my-hospital-lake/speech

Ray knows only success and failure, and a scheduler would start a failed job again. A run that finished with failed recordings
(exit code 3) has nothing to start again, so this job reports it as success.
"""

import sys

from dictalake.cli.main import EXIT_SOME_FAILED, main

if __name__ == "__main__":
    code = main(["backfill", *sys.argv[1:]])
    sys.exit(0 if code == EXIT_SOME_FAILED else code)
