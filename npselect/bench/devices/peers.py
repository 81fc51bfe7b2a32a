"""What stands beside npselect on a device: functions of arrays that lie there, by call and by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from npselect import straight_through
from npselect.bench.devices.arrays import DeviceArray

__all__ = ["NPSELECT", "DevicePeers", "RowCall"]

RowCall = Callable[[DeviceArray, DeviceArray, DeviceArray, float], DeviceArray]
"""Takes (grad_mask, logits, out, temp). It returns its result, or None if that is in `out`."""
DevicePeers = Mapping[str, Mapping[str, RowCall]]
"""By call, "forward" or "backward", and by the peer's name."""

NPSELECT: DevicePeers = MappingProxyType(
    {
        "forward": {"npselect": lambda g, logits, out, temp: straight_through.forward(logits, temp, out=out)},
        "backward": {"npselect": lambda g, logits, out, temp: straight_through.backward(g, logits, temp, out=out)},
    }
)
