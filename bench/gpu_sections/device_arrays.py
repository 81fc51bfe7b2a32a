"""Arrays on the device, of whichever framework is there: torch's tensors, else CuPy's arrays, else numba's.

Each class has the same few functions; what a framework cannot do raises, and is reported where it was asked for.
`Host` keeps NumPy arrays on the host and names the tier instead: it is for machines without a framework, and for tests.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpu_sections import kept

__all__ = ["POISON", "Cupy", "Host", "Numba", "Torch", "find", "host_dtype", "poisoned"]

# Bits that no result has: NaN with a payload, and a number that is no index.
POISON = {"float16": 0x7EA5, "bfloat16": 0x7FE5, "float32": 0x7FE5A5A5, "float64": 0x7FFDA5A5A5A5A5A5}
POISON["int64"] = 0x5A5A5A5A5A5A5A5A


def host_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of that name; of bfloat16, that of ml_dtypes."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def poisoned(shape: tuple[int, ...], dtype: str) -> Any:
    """A NumPy array of poison."""
    kind = host_dtype(dtype)
    return np.full(shape, POISON[dtype], np.dtype(f"u{kind.itemsize}")).view(kind)


class Host:
    """NumPy arrays, with the tier by name."""

    name = "numpy"

    def __init__(self, backend: str = "cuda") -> None:
        self.backend: str | None = backend

    def from_host(self, array: Any, skew: int = 0) -> Any:
        """A copy on the device; `skew` elements after the start of its memory."""
        result = self.empty(array.shape, array.dtype.name, skew)
        result[...] = array
        return result

    def to_host(self, array: Any) -> Any:
        return np.asarray(array)

    def empty(self, shape: tuple[int, ...], dtype: str, skew: int = 0) -> Any:
        return np.empty(math.prod(shape) + skew, host_dtype(dtype))[skew:].reshape(shape)

    def poison(self, array: Any) -> None:
        """Fill it with bits that no result has."""
        array[...] = poisoned(array.shape, array.dtype.name)

    def synchronize(self) -> None: ...

    def alive(self) -> bool:
        """Whether the device still answers."""
        return True


class Torch:
    """torch's tensors, on the device or, for tests, on the processor."""

    name, backend = "torch", None

    def __init__(self, device: str = "cuda") -> None:
        import torch

        self.torch, self.device = torch, torch.device(device)
        torch.set_grad_enabled(False)
        self.synchronize()
        self.from_host(np.zeros(1, np.float32))

    def from_host(self, array: Any, skew: int = 0) -> Any:
        contiguous = np.require(array, None, ["C", "W"])
        bits = contiguous.view(np.int16) if array.dtype.name == "bfloat16" else contiguous
        result = self.empty(array.shape, array.dtype.name, skew)
        into = result.view(self.torch.int16) if array.dtype.name == "bfloat16" else result
        into.copy_(self.torch.from_numpy(bits))
        return result

    def to_host(self, array: Any) -> Any:
        if isinstance(array, (np.ndarray, np.generic)):
            return np.asarray(array)
        if not isinstance(array, self.torch.Tensor):
            dlpack = hasattr(array, "__dlpack__")
            array = self.torch.from_dlpack(array) if dlpack else self.torch.as_tensor(array, device=self.device)
        if array.dtype == self.torch.bfloat16:
            return array.view(self.torch.int16).cpu().numpy().view(host_dtype("bfloat16"))
        return array.cpu().numpy()

    def empty(self, shape: tuple[int, ...], dtype: str, skew: int = 0) -> Any:
        flat = self.torch.empty(math.prod(shape) + skew, dtype=getattr(self.torch, dtype), device=self.device)
        return flat[skew:].reshape(shape)

    def poison(self, array: Any) -> None:
        name = str(array.dtype).removeprefix("torch.")
        array.view(getattr(self.torch, f"int{8 * array.element_size()}")).fill_(POISON[name])

    def random(self, size: int, dtype: str, seed: int) -> Any:
        """Normal numbers, one axis."""
        generator = self.torch.Generator(self.device).manual_seed(seed)
        result = self.empty((size,), dtype)
        for start in range(0, size, 1 << 28):
            result[start : start + (1 << 28)].normal_(generator=generator)
        return result

    def copy(self, to: Any, source: Any) -> None:
        to.copy_(source)

    def event(self) -> Any:
        """A mark in the stream, with a time."""
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, first: Any, second: Any) -> float:
        return first.elapsed_time(second) / 1e3

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            self.torch.cuda.synchronize()

    def alive(self) -> bool:
        return _answers(self)


class Cupy:
    """CuPy's arrays; bfloat16 where this CuPy has it."""

    name, backend = "cupy", None

    def __init__(self) -> None:
        import cupy

        self.cupy = cupy
        self.from_host(np.zeros(1, np.float32))

    def from_host(self, array: Any, skew: int = 0) -> Any:
        result = self.empty(array.shape, array.dtype.name, skew)
        result.set(np.require(array, None, ["C"]))
        return result

    def to_host(self, array: Any) -> Any:
        if isinstance(array, (np.ndarray, np.generic)):
            return np.asarray(array)
        return self.cupy.asnumpy(array if isinstance(array, self.cupy.ndarray) else self.cupy.asarray(array))

    def empty(self, shape: tuple[int, ...], dtype: str, skew: int = 0) -> Any:
        return self.cupy.empty(math.prod(shape) + skew, host_dtype(dtype))[skew:].reshape(shape)

    def poison(self, array: Any) -> None:
        array.view(f"u{array.dtype.itemsize}").fill(POISON[array.dtype.name])

    def random(self, size: int, dtype: str, seed: int) -> Any:
        numbers = self.cupy.random.default_rng(seed)
        drawn = np.float64 if dtype == "float64" else np.float32
        return numbers.standard_normal(size, dtype=drawn).astype(host_dtype(dtype), copy=False)

    def copy(self, to: Any, source: Any) -> None:
        self.cupy.copyto(to, source)

    def event(self) -> Any:
        event = self.cupy.cuda.Event()
        event.record()
        return event

    def seconds(self, first: Any, second: Any) -> float:
        return self.cupy.cuda.get_elapsed_time(first, second) / 1e3

    def synchronize(self) -> None:
        self.cupy.cuda.Device().synchronize()

    def alive(self) -> bool:
        return _answers(self)


class Numba:
    """numba-cuda's arrays, which have no bfloat16."""

    name, backend = "numba", None

    def __init__(self) -> None:
        from numba import cuda

        self.cuda = cuda
        self.from_host(np.zeros(1, np.float32))

    def from_host(self, array: Any, skew: int = 0) -> Any:
        result = self.empty(array.shape, array.dtype.name, skew)
        if array.size:
            result.copy_to_device(np.require(array, None, ["C"]))
        return result

    def to_host(self, array: Any) -> Any:
        if hasattr(array, "__cuda_array_interface__"):
            return self.cuda.as_cuda_array(array).copy_to_host()
        return np.asarray(array)

    def empty(self, shape: tuple[int, ...], dtype: str, skew: int = 0) -> Any:
        flat = self.cuda.device_array(math.prod(shape) + skew, host_dtype(dtype))
        return flat[skew:].reshape(shape) if skew or len(shape) != 1 else flat

    def poison(self, array: Any) -> None:
        if array.size:
            array.copy_to_device(poisoned(array.shape, array.dtype.name))

    def random(self, size: int, dtype: str, seed: int) -> Any:
        drawn = np.float64 if dtype == "float64" else np.float32
        numbers = np.random.default_rng(seed).standard_normal(min(size, 1 << 24), dtype=drawn)
        return self.from_host(np.resize(numbers, size).astype(host_dtype(dtype), copy=False))

    def copy(self, to: Any, source: Any) -> None:
        to.copy_to_device(source)

    def event(self) -> Any:
        event = self.cuda.event(timing=True)
        event.record()
        return event

    def seconds(self, first: Any, second: Any) -> float:
        return first.elapsed_time(second) / 1e3

    def synchronize(self) -> None:
        self.cuda.synchronize()

    def alive(self) -> bool:
        return _answers(self)


def _answers(arrays: Any) -> bool:
    """Whether a number goes there and comes back."""
    try:
        arrays.synchronize()
        return bool(arrays.to_host(arrays.from_host(np.full(3, 7, np.float32)))[2] == 7)
    except Exception:
        return False


def find(report: Any = None) -> Any:
    """The arrays of the first framework that reaches the device; a report is told why others do not.

    Kernels that were compiled before are taken from where they are kept, from here on.
    """
    reasons = []
    for kind in (Torch, Cupy, Numba):
        try:
            found = kind()
        except Exception as error:
            reasons.append(f"{kind.name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
            continue
        if report is not None:
            report.fact("arrays", found.name)
            for reason in reasons:
                report.note(reason)
            report.alive = found.alive
        kept.install(report)
        return found
    raise RuntimeError("; ".join(reasons))
