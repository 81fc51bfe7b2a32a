"""What bench/count.py starts for what it counts: ``count_calls.py calls CELLS [DIR]`` or ``count_calls.py first K``.

It imports of npselect what it calls and nothing else: that may be another clone's.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

ARRAYS = {  # what a function takes before temp
    "forward": ("logits",),
    "index": ("logits",),
    "soft": ("logits",),
    "backward": ("grad", "logits"),
    "backward_temp": ("grad", "logits"),
    "double_backward": ("grad_grad", "grad", "logits"),
    "gumbel_forward": ("logits",),
    "gumbel_backward": ("grad", "logits"),
}
ELEMENTS = 1 << 16  # twice as many are still few enough for one thread and one range


def call(function: str, dtype: str, choices: int, rows: int) -> Callable[[], object]:
    """A call of npselect with arrays of its own, results included; few exponentials are 0."""
    noisy, name = function.startswith("gumbel_"), function.removeprefix("gumbel_")
    operator = import_module("npselect.gumbel_softmax" if noisy else "npselect.straight_through")
    kind = np.dtype(getattr(import_module("ml_dtypes"), dtype) if dtype == "bfloat16" else dtype)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((rows, choices)).astype(kind) for _ in ARRAYS[function]]
    options: dict[str, Any] = {"seed": 1} if noisy else {}
    temps = [] if name == "index" else [0.6]
    result = getattr(operator, name)(*arrays, *temps, **options)
    return partial(getattr(operator, name), *arrays, *temps, **options, out=result)


def rows_of(choices: int, times: int) -> int:
    """So many rows that short ones fill whole tiles of sixteen."""
    return times * max(1, ELEMENTS // choices // 16 * 16 or ELEMENTS // choices)


def calls(cells: list[tuple[str, str, int]], counts: Path | None) -> None:
    """Call everything once and, under valgrind, once more in each of two forks a cell."""
    for function, dtype, choices in cells:
        small, large = (call(function, dtype, choices, rows_of(choices, times)) for times in (1, 2))
        for one in (small, large):
            one()
        if counts is None:
            continue
        for times, one in ((1, small), (2, large)):
            child = os.fork()
            if child == 0:
                one()
                (counts / f"{os.getpid()}.cell").write_text(json.dumps([function, dtype, choices, times]))
                os._exit(0)
            _, status = os.waitpid(child, 0)
            if status:
                raise SystemExit(f"{function}, {dtype}, {choices} choices: status {status}")


def first_calls(choices: int) -> None:
    """Processor seconds of the first calls of a process, as JSON."""
    started = time.process_time()
    import_module("npselect.tiers.cpu.rows")
    seconds = {"import": time.process_time() - started}
    logits = np.zeros((1, choices), np.float32)
    operator = import_module("npselect.straight_through")
    for name, arrays in (("forward", (logits,)), ("backward", (logits, logits))):
        started = time.process_time()
        getattr(operator, name)(*arrays)
        seconds[name] = time.process_time() - started
    print(json.dumps(seconds))


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    if what == "calls":
        calls(json.loads(words[0]), Path(words[1]) if words[1:] else None)
    else:
        first_calls(int(words[0]))
