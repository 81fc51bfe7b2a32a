"""How long the first call takes: import, compile or load, forward and backward in float32, each in a new process.

Run ``python bench/first_call.py``. "Cold" starts with an empty cache directory and so compiles; "warm" finds what
"cold" left. Medians over a few processes of each, beside a process that imports NumPy alone.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

CALL = """
import numpy as np, npselect
logits = np.float32([[0.5, 2.0, -1.0]])
npselect.straight_through.forward(logits)
npselect.straight_through.backward(logits, logits)
"""


def seconds(code, cache):
    """Wall time of a new process that runs `code`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "NUMBA_CACHE_DIR": cache})
    return time.perf_counter() - start


def main(repeats=5):
    """Measure, interleaved, and print."""
    times = {"import numpy": [], "import npselect": [], "cold": [], "warm": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            times["import numpy"].append(seconds("import numpy", cache))
            times["import npselect"].append(seconds("import npselect", cache))
            times["cold"].append(seconds(CALL, cache))
            times["warm"].append(seconds(CALL, cache))
    for name, values in times.items():
        print(f"{name:16} median {statistics.median(values):6.3f} s   range {min(values):.3f} .. {max(values):.3f} s")


if __name__ == "__main__":
    main()
