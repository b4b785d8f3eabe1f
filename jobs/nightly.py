"""Transcribes what is new since yesterday; for cron. It prints one line, or none if nothing was new.

30 1 * * *  cd /opt/dictalake && .venv/bin/python -m jobs.nightly --config nightly.yaml
"""

import sys

from dictalake.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["nightly", *sys.argv[1:]]))
