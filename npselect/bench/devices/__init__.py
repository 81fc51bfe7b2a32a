"""Benchmarks on a GPU: arrays of whichever framework is there, times between events, peers, and the same judgement.

No framework is imported before a class or a peer is asked for. `bench/gpu.py` is the command that uses all of this.
"""

from npselect.bench.devices import by_cupy, by_torch
from npselect.bench.devices.arrays import Arrays, Host
from npselect.bench.devices.frameworks import Cupy, Numba, Torch, find
from npselect.bench.devices.functions import FUNCTIONS, Function, function
from npselect.bench.devices.judging import Sample
from npselect.bench.devices.nvidia import NoDeviceError, device
from npselect.bench.devices.timing import Pool, interleaved, measured, percentiles

__all__ = [
    "FUNCTIONS",
    "Arrays",
    "Cupy",
    "Function",
    "Host",
    "NoDeviceError",
    "Numba",
    "Pool",
    "Sample",
    "Torch",
    "by_cupy",
    "by_torch",
    "device",
    "find",
    "function",
    "interleaved",
    "measured",
    "percentiles",
]
