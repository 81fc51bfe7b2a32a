"""What NVIDIA's driver says of the device, asked through `ctypes`.

As a script it needs no package, and fails where there is no device: ``python -P npselect/bench/devices/nvidia.py``.
"""

from __future__ import annotations

import ctypes
from typing import Any

__all__ = ["NoDeviceError", "device"]

ATTRIBUTES = {
    "multiprocessors": 16,
    "l2_bytes": 38,
    "clock_khz": 13,
    "memory_clock_khz": 36,
    "bus_bits": 37,
    "registers_per_block": 12,
    "shared_bytes_per_block_optin": 97,
}


class NoDeviceError(RuntimeError):
    """There is no GPU to be used; the message says what is missing."""


def device() -> dict[str, Any]:
    """The first device: its name, memory and attributes.

    Raises
    ------
    NoDeviceError
        No driver, no device, or a driver that does not start.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise NoDeviceError(f"no NVIDIA driver: {error}") from None
    count, number, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _check(driver, "cuInit", driver.cuInit(0))
    _check(driver, "cuDeviceGetCount", driver.cuDeviceGetCount(ctypes.byref(count)))
    if count.value == 0:
        raise NoDeviceError("the driver has no device")
    _check(driver, "cuDeviceGet", driver.cuDeviceGet(ctypes.byref(number), 0))
    driver.cuDriverGetVersion(ctypes.byref(version))
    name, memory = ctypes.create_string_buffer(200), ctypes.c_size_t()
    _check(driver, "cuDeviceGetName", driver.cuDeviceGetName(name, len(name), number))
    _check(driver, "cuDeviceTotalMem", driver.cuDeviceTotalMem_v2(ctypes.byref(memory), number))
    found: dict[str, Any] = {
        "name": name.value.decode(),
        "devices": count.value,
        "cuda_of_the_driver": f"{version.value // 1000}.{version.value % 1000 // 10}",
        "memory_bytes": memory.value,
    }
    value = ctypes.c_int()
    for what, attribute in ATTRIBUTES.items():
        if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, number) == 0:
            found[what] = value.value
    capability = []
    for attribute in (75, 76):
        _check(driver, "cuDeviceGetAttribute", driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, number))
        capability.append(value.value)
    return {**found, "capability": capability}


def _check(driver: ctypes.CDLL, what: str, code: int) -> None:
    if code != 0:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(code, ctypes.byref(text))
        raise NoDeviceError(f"{what} answers {code}, {(text.value or b'?').decode()}")


if __name__ == "__main__":
    try:
        print(device())
    except NoDeviceError as error:
        raise SystemExit(str(error)) from None
