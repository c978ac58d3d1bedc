"""``python -m convit`` is ``convit``."""

from convit_launcher import program

program()
