"""PyTorch's tensors, else CuPy's arrays, else numba's: whichever framework reaches the device."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npselect.bench.devices.arrays import POISON, Arrays, DeviceArray, Event, Shape, host_dtype, poisoned
from npselect.bench.peer import needed
from npselect.testing.aliases import Array

__all__ = ["Cupy", "Numba", "Torch", "find"]


class Torch(Arrays):
    """PyTorch's tensors, on the device or, for tests, on the processor."""

    name, backend = "torch", None

    def __init__(self, device: str = "cuda") -> None:
        self.torch = needed("torch")
        self.device = self.torch.device(device)
        self.torch.set_grad_enabled(False)
        self.synchronize()
        self.from_host(np.zeros(1, np.float32))

    def from_host(self, array: Array, skew: int = 0) -> DeviceArray:
        contiguous = np.require(array, None, ["C", "W"])
        bits = contiguous.view(np.int16) if array.dtype.name == "bfloat16" else contiguous
        result = self.empty(array.shape, array.dtype.name, skew)
        into = result.view(self.torch.int16) if array.dtype.name == "bfloat16" else result
        into.copy_(self.torch.from_numpy(bits))
        return result

    def to_host(self, array: DeviceArray) -> Array:
        if isinstance(array, (np.ndarray, np.generic)):
            return np.asarray(array)
        if not isinstance(array, self.torch.Tensor):
            dlpack = hasattr(array, "__dlpack__")
            array = self.torch.from_dlpack(array) if dlpack else self.torch.as_tensor(array, device=self.device)
        if array.dtype == self.torch.bfloat16:
            return np.asarray(array.view(self.torch.int16).cpu().numpy().view(host_dtype("bfloat16")))
        return np.asarray(array.cpu().numpy())

    def empty(self, shape: Shape, dtype: str, skew: int = 0) -> DeviceArray:
        flat = self.torch.empty(math.prod(shape) + skew, dtype=getattr(self.torch, dtype), device=self.device)
        return flat[skew:].reshape(shape)

    def poison(self, array: DeviceArray) -> None:
        name = str(array.dtype).removeprefix("torch.")
        array.view(getattr(self.torch, f"int{8 * array.element_size()}")).fill_(POISON[name])

    def random(self, size: int, dtype: str, seed: int) -> DeviceArray:
        generator = self.torch.Generator(self.device).manual_seed(seed)
        result = self.empty((size,), dtype)
        for start in range(0, size, 1 << 28):
            result[start : start + (1 << 28)].normal_(generator=generator)
        return result

    def copy(self, to: DeviceArray, source: DeviceArray) -> None:
        to.copy_(source)

    def event(self) -> Event:
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, first: Event, second: Event) -> float:
        return float(first.elapsed_time(second)) / 1e3

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            self.torch.cuda.synchronize()


class Cupy(Arrays):
    """CuPy's arrays; bfloat16 where this CuPy has it."""

    name, backend = "cupy", None

    def __init__(self) -> None:
        self.cupy = needed("cupy")
        self.from_host(np.zeros(1, np.float32))

    def from_host(self, array: Array, skew: int = 0) -> DeviceArray:
        result = self.empty(array.shape, array.dtype.name, skew)
        result.set(np.require(array, None, ["C"]))
        return result

    def to_host(self, array: DeviceArray) -> Array:
        if isinstance(array, (np.ndarray, np.generic)):
            return np.asarray(array)
        here = array if isinstance(array, self.cupy.ndarray) else self.cupy.asarray(array)
        return np.asarray(self.cupy.asnumpy(here))

    def empty(self, shape: Shape, dtype: str, skew: int = 0) -> DeviceArray:
        return self.cupy.empty(math.prod(shape) + skew, host_dtype(dtype))[skew:].reshape(shape)

    def poison(self, array: DeviceArray) -> None:
        array.view(f"u{array.dtype.itemsize}").fill(POISON[array.dtype.name])

    def random(self, size: int, dtype: str, seed: int) -> DeviceArray:
        numbers = self.cupy.random.default_rng(seed)
        drawn = np.float64 if dtype == "float64" else np.float32
        return numbers.standard_normal(size, dtype=drawn).astype(host_dtype(dtype), copy=False)

    def copy(self, to: DeviceArray, source: DeviceArray) -> None:
        self.cupy.copyto(to, source)

    def event(self) -> Event:
        event = self.cupy.cuda.Event()
        event.record()
        return event

    def seconds(self, first: Event, second: Event) -> float:
        return float(self.cupy.cuda.get_elapsed_time(first, second)) / 1e3

    def synchronize(self) -> None:
        self.cupy.cuda.Device().synchronize()


class Numba(Arrays):
    """numba-cuda's arrays, which have no bfloat16."""

    name, backend = "numba", None

    def __init__(self) -> None:
        self.cuda = needed("numba.cuda")
        self.from_host(np.zeros(1, np.float32))

    def from_host(self, array: Array, skew: int = 0) -> DeviceArray:
        result = self.empty(array.shape, array.dtype.name, skew)
        if array.size:
            result.copy_to_device(np.require(array, None, ["C"]))
        return result

    def to_host(self, array: DeviceArray) -> Array:
        if hasattr(array, "__cuda_array_interface__"):
            return np.asarray(self.cuda.as_cuda_array(array).copy_to_host())
        return np.asarray(array)

    def empty(self, shape: Shape, dtype: str, skew: int = 0) -> DeviceArray:
        flat = self.cuda.device_array(math.prod(shape) + skew, host_dtype(dtype))
        return flat[skew:].reshape(shape) if skew or len(shape) != 1 else flat

    def poison(self, array: DeviceArray) -> None:
        if array.size:
            array.copy_to_device(poisoned(array.shape, array.dtype.name))

    def random(self, size: int, dtype: str, seed: int) -> DeviceArray:
        drawn: Any = np.float64 if dtype == "float64" else np.float32
        numbers = np.random.default_rng(seed).standard_normal(min(size, 1 << 24), dtype=drawn)
        return self.from_host(np.resize(numbers, size).astype(host_dtype(dtype), copy=False))

    def copy(self, to: DeviceArray, source: DeviceArray) -> None:
        to.copy_to_device(source)

    def event(self) -> Event:
        event = self.cuda.event(timing=True)
        event.record()
        return event

    def seconds(self, first: Event, second: Event) -> float:
        return float(first.elapsed_time(second)) / 1e3

    def synchronize(self) -> None:
        self.cuda.synchronize()


def find() -> tuple[Arrays, list[str]]:
    """The arrays of the first framework that reaches the device, and why those before it do not.

    Raises
    ------
    RuntimeError
        None reaches it.
    """
    reasons: list[str] = []
    kinds: tuple[type[Torch | Cupy | Numba], ...] = (Torch, Cupy, Numba)
    for kind in kinds:
        try:
            return kind(), reasons
        except Exception as error:
            reasons.append(f"{kind.name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
    raise RuntimeError("; ".join(reasons))
