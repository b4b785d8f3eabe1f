"""Merges the small files of a lake and removes files that nothing uses; for cron, once a week.

0 4 * * 0  cd /opt/dictalake && .venv/bin/python -m jobs.compact --lake.uri gs://my-hospital-lake/speech
"""

import sys

from dictalake.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["compact", *sys.argv[1:]]))
