"""``python -m dictalake``: the same as the command ``dictalake``."""

import sys

from dictalake.cli.main import main

sys.exit(main())
