"""Arrays of every framework that is there, and a stream of the caller's: a part of the section `correctness`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpu_sections.comparison import compare
from gpu_sections.inputs import finite_batch
from gpu_sections.report import Report

__all__ = ["check_frameworks", "check_stream"]


def _torch() -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    import torch

    return (lambda array: torch.from_numpy(array).to("cuda")), (lambda result: torch.as_tensor(result, device="cuda"))


def _cupy() -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    import cupy

    return cupy.asarray, cupy.asarray


def _numba() -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    from numba import cuda

    return cuda.to_device, cuda.as_cuda_array


def _jax() -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    import jax

    device = jax.devices("gpu")[0]
    return (lambda array: jax.device_put(array, device)), _numba()[1]


def _host(wrapped: Any) -> Any:
    """A framework's array as NumPy's."""
    if hasattr(wrapped, "copy_to_host"):
        return wrapped.copy_to_host()
    return (
        wrapped.get() if hasattr(wrapped, "get") else np.asarray(wrapped.cpu() if hasattr(wrapped, "cpu") else wrapped)
    )


def check_frameworks(report: Report) -> None:
    """Without `out`: what comes back lies on the device, and can be wrapped there."""
    from npselect import straight_through

    made = finite_batch("float32", 131, 1000, 6)
    expected = straight_through.backward(made.grad_mask, made.logits, 0.6)
    for name, load in {"torch": _torch, "cupy": _cupy, "numba": _numba, "jax": _jax}.items():
        try:
            into, wrap = load()
        except ImportError as error:
            report.note(f"{name} is not there: {error}")
            continue
        with report.attempt(f"arrays of {name}"):
            result = straight_through.backward(into(made.grad_mask), into(made.logits), 0.6)
            if isinstance(result, np.ndarray):
                raise TypeError("a NumPy array came back for arrays on the device")
            found = compare(_host(wrap(result)), expected)
            report.line("check", what=f"arrays of {name}", dtype="float32", choices=1000, **found)


def check_stream(report: Report, arrays: Any) -> None:
    """On a stream of the caller's that is busy: the logits are not there before it has come to them."""
    from npselect import straight_through

    if arrays.name != "torch":
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
