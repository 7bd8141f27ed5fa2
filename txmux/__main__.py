"""``python -m txmux`` is the `txmux` program."""

import sys

from txmux.cli import main

sys.exit(main())
