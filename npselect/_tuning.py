"""What was tuned on the host: each number with its unit, and the reason for its value.

No result depends on any of them. The constants that kernels are compiled with stand beside the kernels.
"""

from __future__ import annotations

__all__ = [
    "CACHE_LINE",
    "LEAST_RANGE",
    "MOST_AT_ONCE",
    "NOISE_BLOCK",
    "RANGES_PER_THREAD",
    "ROW_MEMORY",
    "SAMPLES_AT_ONCE",
    "SMALL_BATCH",
    "TEMPS_KEPT",
    "WORTH_THREADS",
]

# ------------------------------------------------------------------------------------------------ threads

WORTH_THREADS = 1 << 18
"""Elements of a batch. Below, handing work to another thread costs more than it saves."""

LEAST_RANGE = 1 << 15
"""Elements of a range of rows. A smaller one takes less time than it takes a thread to fetch it."""

RANGES_PER_THREAD = 4
"""Ranges. With several, a thread on a busy processor is not waited for by all the others."""

MOST_AT_ONCE = 1 << 24
"""Elements of a call of a kernel. Kernels do not see an interrupt (Ctrl-C), which waits until one returns."""

# ------------------------------------------------------------------------------------------------ the CPU tier's memory

CACHE_LINE = 64
"""Bytes, on x86 and on most ARM. Scratch memory starts at one, lest a vector's loads straddle two."""

SMALL_BATCH = 4096
"""Elements. Below, aligning scratch memory takes longer than straddled loads do."""

NOISE_BLOCK = 1 << 16
"""Elements whose noise is drawn at a time: 256 KiB of float32, which stay in a core's cache until they are read."""

SAMPLES_AT_ONCE = 16
"""Samples of a row. What a kernel computes once for all of them then costs little; more would only shorten the blocks
of rows whose noise is drawn at a time."""

ROW_MEMORY = 1 << 20
"""Bytes that a thread keeps of a row and of its noise: what a core's second-level cache holds. Longer rows are read in
segments, whose exponentials are computed again in each pass."""

# ------------------------------------------------------------------------------------------------ the fast path

TEMPS_KEPT = 256
"""Temperatures. A schedule may run through many; a float that was seen before is checked and rounded no more."""
