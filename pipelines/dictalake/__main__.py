"""Makes ``python -m dictalake`` do what the command ``dictalake`` does."""

import sys

from dictalake.cli.main import main

sys.exit(main())
