"""What the CUDA tier's kernels issue and ask of memory, for each element: ``python tests/counted.py``.

Nothing is timed. Counted are the instructions of the PTX, 32 for each that a warp issues, whoever of its threads takes
part; what ptxas makes of them is fewer moves, and several instructions for most of those on 64-bit integers and for
divisions. Sectors are those of 32 bytes that a warp asks for at a time, over the least that would hold its bytes; and
over those of the arrays, each read or written once.
"""

import numpy as np
from compiled import ARRAYS, DTYPES, on_device
from ptx.device import Device

from npselect import gumbel_softmax, straight_through

CHOICES = (2, 8, 10, 33, 64, 256, 1024, 4096, 16384)
ELEMENTS = 8192
CLASSES = ("float32", "float64", "int32", "int64", "predicate", "shuffle", "global", "other memory", "control", "move")
HEADER = ("float32", "float64", "int32", "int64", "pred", "shuffle", "global", "other", "control", "move")
RUNS = [
    *((straight_through, name, "float32", CHOICES) for name in ("forward", "backward", "soft", "double_backward")),
    *((straight_through, name, "bfloat16", (8, 64, 1024)) for name in ("forward", "backward")),
    (gumbel_softmax, "forward", "float32", CHOICES),
]


def counts(device, operator, name, dtype, choices):
    """Of one call, and the bytes of the arrays."""
    rows = -(-ELEMENTS // choices // 64) * 64 if choices < 256 else max(2, ELEMENTS // choices)
    rng = np.random.default_rng(0)
    arrays = [on_device(device, rng.standard_normal((rows, choices)).astype(DTYPES[dtype])) for _ in ARRAYS[name]]
    options = {"seed": 1} if operator is gumbel_softmax else {}
    device.clear()
    results = getattr(operator, name)(*arrays, **options)
    results = results if isinstance(results, tuple) else (results,)
    return device.counts, rows * choices, sum(array.nbytes for array in (*arrays, *results))


def main():
    with Device().installed() as device:
        for operator, name, dtype, all_choices in RUNS:
            print(f"\n{operator.__name__.split('.')[-1]}.{name}, {dtype}\n")
            print("| choices | all but moves | " + " | ".join(HEADER) + " | sectors / least | / arrays |")
            print("|" + "---|" * (len(HEADER) + 4))
            for choices in all_choices:
                found, elements, nbytes = counts(device, operator, name, dtype, choices)
                slots = {kind: 32 * found.issued[kind] / elements for kind in CLASSES}
                numbers = [sum(slots.values()) - slots["move"], *slots.values()]
                ratios = found.sectors / found.least_sectors, 32 * found.sectors / nbytes
                cells = [f"{choices:,}", *(f"{x:.3g}" if x else "0" for x in numbers), *(f"{x:.2f}" for x in ratios)]
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
