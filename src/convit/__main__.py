"""``python -m convit`` is ``convit``."""

import sys

from convit_launcher import main

sys.exit(main())
