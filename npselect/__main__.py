"""``python -m npselect`` is the command ``npselect``."""

import sys

from npselect.cli import main

sys.exit(main())
