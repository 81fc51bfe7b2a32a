"""How tests start Python: what Python shows of warnings by default, and so a user of npselect would see, is an error.

What pytest has been told by its option ``-W``, these processes are told too.
"""

from __future__ import annotations

import sys

FOR_AUTHORS = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)  # not shown by default

warned: list[str] = []  # set by conftest.py


def python() -> list[str]:
    """The start of a command."""
    filters = ["error", *(f"ignore::{category.__name__}" for category in FOR_AUTHORS), *warned]
    return [sys.executable, *(word for each in filters for word in ("-W", each))]
