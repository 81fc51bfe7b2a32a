"""What a name in a device function's signature stands for, beyond those that the CPU's have too.

numba infers the types anew from each call; these aliases are for readers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy.typing as npt

__all__ = [
    "Address",
    "Count",
    "DType",
    "ForeignArray",
    "Function",
    "HostArray",
    "Kind",
    "LaneSums",
    "Mask",
    "Position",
    "Quads",
    "Shared",
    "Stored",
    "Unknown",
]

# ------------------------------------------------------------------------------------------------ on the host

HostArray: TypeAlias = npt.NDArray[Any]
"""NumPy's."""
DType: TypeAlias = Any
"""A `numpy.dtype`, or what stands for bfloat16's where NumPy knows none."""
ForeignArray: TypeAlias = Any
"""An array of any library."""
Unknown: TypeAlias = Any
"""An object of numba's, of the bindings', or of another library's, which says nothing of its type."""
Function: TypeAlias = Callable[..., Any]
"""A device function, or one that makes one."""

# ------------------------------------------------------------------------------------------------ in kernels

Kind: TypeAlias = Any
"""The NumPy type of what is stored: uint16 for float16, int16 for bfloat16, else the type itself. A constant."""
Stored: TypeAlias = Any
"""A number as it is stored."""
Address: TypeAlias = Any
"""An int64; or an array in shared memory, which is used like one."""
Position: TypeAlias = Any
"""int64: of an element, counted from an address."""
Count: TypeAlias = Any
"""How many."""
Mask: TypeAlias = Any
"""An integer with a bit for each slot."""
Quads: TypeAlias = Any
"""The entries of a row that a thread has in registers, in fours."""
LaneSums: TypeAlias = Any
"""The sums of a thread's lanes of a segment, in registers."""
Shared: TypeAlias = Any
"""An array in shared memory."""
