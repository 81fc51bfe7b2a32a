"""Arrays of every framework that is there, and a stream of the caller's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cuda_device import Log
from cuda_device.comparison import compare
from cuda_device.inputs import finite_batch
from npselect import straight_through
from npselect.bench import LeftOutError
from npselect.bench.devices import Arrays, Cupy, Numba, Torch
from npselect.bench.devices.arrays import DeviceArray
from npselect.bench.peer import needed
from npselect.testing.aliases import Array

__all__ = ["check_frameworks", "check_stream"]

Into = Callable[[Array], DeviceArray]
Back = Callable[[DeviceArray], Array]


def _torch() -> tuple[Into, Back]:
    arrays = Torch()
    return arrays.from_host, lambda result: arrays.to_host(arrays.torch.as_tensor(result, device="cuda"))


def _cupy() -> tuple[Into, Back]:
    arrays = Cupy()
    return arrays.from_host, arrays.to_host


def _numba() -> tuple[Into, Back]:
    arrays = Numba()
    return arrays.from_host, arrays.to_host


def _jax() -> tuple[Into, Back]:
    jax = needed("jax")
    device = jax.devices("gpu")[0]
    return (lambda array: jax.device_put(array, device)), Numba().to_host


def check_frameworks(report: Log) -> None:
    """Without `out`: what comes back lies on the device, and can be wrapped there."""
    made = finite_batch("float32", 131, 1000, 6)
    expected = straight_through.backward(made.grad_mask, made.logits, 0.6)
    for name, load in {"torch": _torch, "cupy": _cupy, "numba": _numba, "jax": _jax}.items():
        try:
            into, back = load()
        except LeftOutError as error:
            report.note(str(error))
            continue
        with report.attempt(f"arrays of {name}"):
            result = straight_through.backward(into(made.grad_mask), into(made.logits), 0.6)
            if isinstance(result, np.ndarray):
                raise TypeError("a NumPy array came back for arrays on the device")
            found = compare(back(result), expected)
            report.line("check", what=f"arrays of {name}", dtype="float32", choices=1000, **found)


def check_stream(report: Log, arrays: Arrays) -> None:
    """On a stream of the caller's that is busy: the logits are not there before it has come to them."""
    if not isinstance(arrays, Torch):
        report.note(f"streams are tried with torch; {arrays.name} is used here")
        return
    torch = arrays.torch
    made = finite_batch("float32", 131, 1000, 7)
    expected = straight_through.backward(made.grad_mask, made.logits, 0.6)
    g, later = arrays.from_host(made.grad_mask), arrays.from_host(made.logits)
    logits, out = arrays.from_host(np.zeros_like(made.logits)), arrays.empty(made.logits.shape, "float32")
    straight_through.backward(g, logits, 0.6, out=out)  # compiled, and loaded
    arrays.poison(out)
    arrays.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # cycles: a tenth of a second
        logits.copy_(later)
        straight_through.backward(g, logits, 0.6, out=out)
        result = out.clone()
    stream.synchronize()
    found = compare(arrays.to_host(result), expected)
    report.line("check", what="a stream of the caller's", dtype="float32", choices=1000, **found)
