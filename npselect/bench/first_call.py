"""How long the first call takes: import, compile or load, forward and backward in float32, each in a new process.

"cold" starts with an empty cache directory and so compiles; "warm" finds what "cold" has left.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import npselect

__all__ = ["FIRST_CALLS", "new_process"]

_CALL = """
import numpy as np
from npselect import {operator} as operator
logits = np.float32([[0.5, 2.0, -1.0]])
operator.forward(logits{options})
operator.backward(logits, logits{options})
"""
FIRST_CALLS: Mapping[str, str] = {
    "import numpy": "import numpy",
    "import npselect": "import npselect",
    **{
        name: _CALL.format(operator=name, options=", seed=1" * ("seed" in operator.options))
        for name, operator in npselect.OPERATORS.items()
    },
}
"""What to run, by name."""


def new_process(code: str, cache: str | os.PathLike[str]) -> None:
    """Run code in a new process that finds this very npselect, with numba's cache in a directory.

    Parameters
    ----------
    code : str
        Python.
    cache : path
        Of machine code; it may be empty.

    Raises
    ------
    subprocess.CalledProcessError
        It failed.
    """
    home = str(Path(npselect.__file__).parents[1])
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "NUMBA_CACHE_DIR": str(cache)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
